//! `paas_role balancer | backend | off;`

use crate::Refusal;

/// What an nginx is in the platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It routes to backends.
    Balancer,
    /// It hands requests to sites.
    Backend,
    /// Neither.
    Off,
}

impl Role {
    /// Reads the word.
    ///
    /// # Errors
    /// It is none of the three.
    pub fn parse(word: &[u8]) -> Result<Self, Refusal> {
        match word {
            b"balancer" => Ok(Self::Balancer),
            b"backend" => Ok(Self::Backend),
            b"off" => Ok(Self::Off),
            other => Err(format!(
                "\"{}\" is no role: write balancer, backend or off",
                other.escape_ascii()
            )),
        }
    }
}

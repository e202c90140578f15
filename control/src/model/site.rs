//! Sites: one web application under one primary domain.
use super::{
    Application, BackendId, Domain, Idle, Invalid, SiteId, SiteSettings, UserName, text_type,
};
use std::path::Path;
use table::SiteRecord;

/// An absolute path in UTF-8 without control characters and without `.` and `..`, at most 1024 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AbsolutePath(String);

impl AbsolutePath {
    /// Checks `text` and takes it; slashes at the end and doubled ones go.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: &str| Err(Invalid::new("an absolute path", text, why));
        if !text.starts_with('/') {
            return refuse("it must begin with /");
        }
        if text.len() > 1024 {
            return refuse("it is longer than 1024 bytes");
        }
        if text.chars().any(char::is_control) {
            return refuse("it has control characters in it");
        }
        let mut path = String::with_capacity(text.len());
        for part in text.split('/').filter(|part| !part.is_empty()) {
            if matches!(part, "." | "..") {
                return refuse("it has . or .. in it");
            }
            path.push('/');
            path.push_str(part);
        }
        Ok(Self(if path.is_empty() {
            "/".to_owned()
        } else {
            path
        }))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}
text_type!(AbsolutePath);

impl AsRef<Path> for AbsolutePath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

/// A site that is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSite {
    /// Who owns it.
    pub user: UserName,
    /// The primary domain: what is hashed in placement.
    pub domain: Domain,
    /// Where its code lies; the working directory of its processes.
    pub directory: AbsolutePath,
    /// What answers.
    pub application: Application,
    /// A virtualenv.
    pub venv: Option<AbsolutePath>,
    /// After how long without a request it is put to sleep; none: as the machine's settings say.
    pub idle: Option<Idle>,
    /// Whether it is served.
    pub enabled: bool,
    /// The backend it runs on whatever placement says.
    pub pin: Option<BackendId>,
    /// How its processes work.
    pub settings: SiteSettings,
}

/// A site as the registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Never used again for another site.
    pub id: SiteId,
    /// Who owns it.
    pub user: UserName,
    /// The primary domain: what is hashed in placement.
    pub domain: Domain,
    /// Where its code lies; the working directory of its processes.
    pub directory: AbsolutePath,
    /// What answers.
    pub application: Application,
    /// A virtualenv.
    pub venv: Option<AbsolutePath>,
    /// After how long without a request it is put to sleep; none: as the machine's settings say.
    pub idle: Option<Idle>,
    /// Whether it is served.
    pub enabled: bool,
    /// The backend it runs on whatever placement says.
    pub pin: Option<BackendId>,
    /// How its processes work.
    pub settings: SiteSettings,
}

impl Site {
    /// What the table says under each of its names.
    pub fn record(&self) -> SiteRecord {
        SiteRecord {
            id: self.id,
            primary: self.domain.clone(),
            pin: self.pin,
            enabled: self.enabled,
            protocol: self.application.protocol(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_plain() {
        assert_eq!(
            AbsolutePath::parse("/srv//a b/").unwrap().as_str(),
            "/srv/a b"
        );
        assert_eq!(AbsolutePath::parse("/").unwrap().as_str(), "/");
        for bad in [
            "", "srv", "./a", "/a/../b", "/a/./b", "/a\nb", "/a\0", "/a\u{85}",
        ] {
            assert!(AbsolutePath::parse(bad).is_err(), "{bad:?}");
        }
    }
}

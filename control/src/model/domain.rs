//! Domains as people type them.
use super::{Domain, Invalid};
use crate::probe::ask;
use idna::AsciiDenyList;

/// Reads a domain typed at the command line: as [`Domain::parse`], and names in other scripts (`bücher.example`) become
/// A-labels (`xn--bcher-kva.example`).
pub fn parse_domain(text: &str) -> Result<Domain, Invalid> {
    let refuse = |why: String| Invalid::new("a domain", text, why);
    if text.is_ascii() {
        let domain = Domain::parse(text).map_err(|error| refuse(error.to_string()))?;
        return match domain.as_str() {
            // Its nginx answers it by itself.
            ask::HOST => Err(refuse("backends tell their health under it".to_owned())),
            _ => Ok(domain),
        };
    }
    let ascii = idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::EMPTY)
        .map_err(|_| refuse("it has characters that no internationalised domain has".to_owned()))?;
    Domain::parse(&ascii).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_scripts_become_a_labels() {
        assert_eq!(
            parse_domain("Bücher.Example").unwrap().as_str(),
            "xn--bcher-kva.example"
        );
        assert_eq!(parse_domain("faß.de").unwrap().as_str(), "xn--fa-hia.de");
        assert_eq!(
            parse_domain("例え。テスト").unwrap().as_str(),
            "xn--r8jz45g.xn--zckzah"
        );
        assert_eq!(
            parse_domain("Shop.Example.").unwrap().as_str(),
            "shop.example"
        );
    }

    #[test]
    fn what_is_no_domain_is_refused_with_its_reason() {
        for bad in [
            "",
            "a b",
            "a..b",
            "10.0.0.1",
            "a/b",
            "a\nb",
            "ü\nb",
            "-a.b",
            "a:80",
            "\u{202e}.b",
            "*.a",
            "PAAS.invalid",
        ] {
            let error = parse_domain(bad).unwrap_err();
            assert!(!error.why.is_empty(), "{bad:?}");
        }
    }
}

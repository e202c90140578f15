//! A self-signed certificate, made by openssl.

use std::path::PathBuf;

use crate::{Root, process};

/// Where a certificate and its key lie, both PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// `certificate.pem` in the test's root.
    pub certificate: PathBuf,
    /// `key.pem` beside it.
    pub key: PathBuf,
}

impl Certificate {
    /// One for these names; clients take no wildcard right below a top-level domain.
    ///
    /// # Panics
    /// When openssl does not make it.
    #[must_use]
    pub fn new(root: &Root, names: &[&str]) -> Certificate {
        let made = Certificate {
            certificate: root.join("certificate.pem"),
            key: root.join("key.pem"),
        };
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let names = format!("subjectAltName={}", names.join(","));
        let (certificate, key) = (
            made.certificate.to_string_lossy(),
            made.key.to_string_lossy(),
        );
        let arguments = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=paas tests",
            "-addext",
            &names,
            "-keyout",
            &key,
            "-out",
            &certificate,
        ];
        let (status, _, words) = process::run("openssl", &arguments);
        assert!(status.success(), "{words}");
        made
    }
}

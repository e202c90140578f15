use super::*;
use crate::model::parse_domain;

fn path(text: &str) -> AbsolutePath {
    AbsolutePath::parse(text).unwrap()
}

fn confinement() -> Confinement {
    let own = Own {
        name: path("/srv/a"),
        place: "/data/a\nb".into(),
        writable: true,
    };
    Confinement {
        groups: vec!["/sys/fs/cgroup/paas/u5/1@2".into()],
        descriptors: 100,
        sandbox: Some(Sandbox {
            bwrap: path("/usr/bin/bwrap"),
            domain: parse_domain(&format!("{}.test", "a".repeat(60))).unwrap(),
            user: UserName::parse("anna").unwrap(),
            uid: 5,
            home: path("/srv/a"),
            temporary: 1000,
            network: None,
            shown: vec![path("/opt")],
            own: vec![own],
        }),
    }
}

#[test]
fn it_is_lines_and_no_value_becomes_another() {
    let lines = confinement().lines();
    let has = |line: &str| {
        assert!(
            lines.lines().any(|found| found == line),
            "{line} in:\n{lines}"
        )
    };
    has("group=/sys/fs/cgroup/paas/u5/1@2");
    has("descriptors=100");
    has("configuration=/etc/localtime");
    has("shown=/opt");
    has("own=/data/a%0Ab%09/srv/a");
    has("file=/etc/group%09anna:x:5:%0Anogroup:x:65534:%0A");
    has("file=/etc/resolv.conf%09");
    let name = lines
        .lines()
        .find_map(|line| line.strip_prefix("hostname="))
        .unwrap();
    assert!(name.len() <= 64 && !lines.contains("network="));
    assert!(!lines.contains("\n\n"));
}

#[test]
fn a_way_out_has_an_address_a_device_and_somebody_to_ask_for_names() {
    let mut confinement = confinement();
    confinement.sandbox.as_mut().unwrap().network = Some(Outbound {
        range: Ipv4Addr::new(10, 213, 0, 0),
        interface: "pn00ff00".to_owned(),
        nameservers: vec!["9.9.9.9".parse().unwrap()],
    });
    let lines = confinement.lines();
    assert!(
        lines.contains("network=10.213.0.0\ninterface=pn00ff00\n"),
        "{lines}"
    );
    assert!(
        lines.contains("resolv.conf%09nameserver 9.9.9.9%0A\n"),
        "{lines}"
    );
}

#[test]
fn what_is_the_system_s_or_the_platform_s_is_no_site_s() {
    let platform = [
        PathBuf::from("/var/lib/paas"),
        PathBuf::from("/p/b1/run/paas"),
    ];
    for bad in [
        "/",
        "/usr",
        "/etc",
        "/etc/x",
        "/proc/1",
        "/var",
        "/var/lib",
        "/var/lib/paas",
        "/var/lib/paas/x",
        "/p",
        "/p/b1/run/paas/sites",
        "/tmp",
    ] {
        assert!(not_a_sites(Path::new(bad), &platform).is_some(), "{bad}");
    }
    for good in [
        "/srv/a",
        "/home/a",
        "/usr/local/a",
        "/tmp/a",
        "/var/www",
        "/p/sites/a",
        "/opt",
    ] {
        assert!(not_a_sites(Path::new(good), &platform).is_none(), "{good}");
    }
}

#[test]
fn a_virtualenv_elsewhere_is_shown_to_read() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    for name in ["a/v", "v"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    let at = |name: &str| path(root.join(name).to_str().unwrap());
    let shown = |venv| own(&at("a"), Some(&at(venv)), &[]).unwrap();
    assert_eq!(shown("a/v").len(), 1);
    let both = shown("v");
    assert!(both[0].writable && !both[1].writable && both[1].place == root.join("v"));
    assert!(own(&at("none"), None, &[]).is_err());
}

use super::*;
use crate::model::{CommandLine, EntryPoint, UwsgiOption};
use proptest::prelude::*;

fn with(change: impl FnOnce(&mut Values)) -> Result<SiteSettings, Invalid> {
    let mut values = Values::default();
    change(&mut values);
    SiteSettings::new(values)
}

fn option(text: &str) -> UwsgiOptions {
    UwsgiOptions::default()
        .with(UwsgiOption::parse(text).unwrap())
        .unwrap()
}

#[test]
fn nothing_set_is_valid() {
    assert!(with(|_| ()).is_ok());
    assert_eq!(
        serde_json::from_str::<SiteSettings>("{}").unwrap(),
        SiteSettings::default()
    );
}

#[test]
fn numbers_have_bounds() {
    assert!(with(|v| v.workers = Some(64)).is_ok());
    for refused in [
        with(|v| v.workers = Some(0)),
        with(|v| v.workers = Some(65)),
        with(|v| v.threads = Some(0)),
        with(|v| v.max_requests = Some(0)),
        with(|v| v.harakiri = Span::from_millis(999)),
        with(|v| v.harakiri = Span::from_millis(86_400_001)),
        with(|v| v.buffer_size = Bytes::new(4095)),
        with(|v| v.buffer_size = Bytes::new(65_536)),
        with(|v| v.post_buffering = Bytes::new(0)),
    ] {
        assert!(refused.is_err());
    }
}

#[test]
fn contradictions_are_refused() {
    let problem = |result: Result<SiteSettings, Invalid>| result.unwrap_err().to_string();
    assert!(problem(with(|v| v.cheaper = Some(1))).contains("--workers"));
    assert!(with(|v| (v.workers, v.cheaper) = (Some(2), Some(2))).is_err());
    assert!(with(|v| (v.workers, v.cheaper) = (Some(2), Some(1))).is_ok());
    assert!(problem(with(|v| v.options = option("cheaper-algo=backlog"))).contains("--cheaper"));
    assert!(
        problem(with(|v| {
            (v.workers, v.cheaper) = (Some(4), Some(1));
            v.options = option("cheaper-initial=5");
        }))
        .contains("--workers")
    );
    let twice = ["/s=/a", "/s/=/b"].map(|text| StaticMapping::parse(text).unwrap());
    assert!(problem(with(|v| v.statics = twice.to_vec())).contains("already"));
}

#[test]
fn a_command_has_none_of_uwsgi_s_settings() {
    let command = Application::Command(CommandLine::parse("node server.js").unwrap());
    let wsgi = Application::Wsgi(EntryPoint::parse("app").unwrap());
    let settings = with(|v| v.threads = Some(2)).unwrap();
    assert!(settings.suit(&wsgi).is_ok());
    assert!(
        settings
            .suit(&command)
            .unwrap_err()
            .to_string()
            .contains("--threads")
    );
    assert!(SiteSettings::default().suit(&command).is_ok());
}

#[test]
fn static_mappings_are_a_url_and_a_directory() {
    let mapping = StaticMapping::parse("/static/=/srv/a b/static").unwrap();
    assert_eq!(mapping.to_string(), "/static=/srv/a b/static");
    for bad in [
        "",
        "/static",
        "static=/srv",
        "=/srv",
        "/=/srv",
        "//=/srv",
        "/a//b=/srv",
        "/../x=/srv",
        "/a b=/srv",
        "/a\n=/srv",
        "/static=srv",
        "/static=/",
        "/static=/srv\nexec-asap=id",
        "/$(X)=/srv",
        "/s=/srv/$(X)",
        "/s=/srv/ ",
    ] {
        assert!(StaticMapping::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_probe_s_target_is_one_word_of_a_request() {
    for good in ["/", "/health", "/a/b?deep=1&x=%20", "/~x;v=1"] {
        assert_eq!(ProbeTarget::parse(good).unwrap().as_str(), good);
    }
    let long = format!("/{}", "x".repeat(1024));
    for bad in [
        "",
        "health",
        "/a b",
        "/a\r\nHost: b",
        "/a#b",
        "/ä",
        "/a\0",
        "//\u{7f}",
        &long,
    ] {
        assert!(ProbeTarget::parse(bad).is_err(), "{bad:?}");
    }
    let command = Application::Command(CommandLine::parse("node server.js").unwrap());
    let probed = with(|v| v.probe = Some(ProbeTarget::parse("/health").unwrap())).unwrap();
    assert!(probed.suit(&command).is_ok(), "any server is probed");
}

proptest! {
    #[test]
    fn what_is_stored_is_read_back(
        workers in proptest::option::of(1_u16..=64),
        threads in proptest::option::of(1_u16..=128),
        harakiri in proptest::option::of(1_u32..=86_400),
        url in "/[a-z]{1,8}",
        directory in "/[a-zäöß%. =]{0,18}[a-z]",
    ) {
        let settings = with(|v| {
            (v.workers, v.threads, v.harakiri) = (workers, threads, harakiri.map(Span::seconds));
            v.statics = vec![StaticMapping::parse(&format!("{url}={directory}")).unwrap()];
        }).unwrap();
        let stored = serde_json::to_string(&settings).unwrap();
        prop_assert_eq!(serde_json::from_str::<SiteSettings>(&stored).unwrap(), settings);
    }
}

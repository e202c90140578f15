use super::*;
use crate::model::{
    AbsolutePath, CommandLine, SiteSettings, StaticMapping, UserName, UwsgiOption, Values,
};
use proptest::prelude::*;

fn site() -> Site {
    Site {
        id: SiteId::new(12).unwrap(),
        user: UserName::parse("anna").unwrap(),
        domain: crate::model::parse_domain("example.org").unwrap(),
        directory: AbsolutePath::parse("/srv/100% mine").unwrap(),
        application: Application::Wsgi(EntryPoint::parse("web/app.py:app").unwrap()),
        venv: None,
        idle: Some(Idle::parse("1500ms").unwrap()),
        enabled: true,
        pin: None,
        settings: SiteSettings::default(),
    }
}

fn defaults() -> Defaults {
    Defaults {
        workers: 2,
        idle: Idle::parse("10m").unwrap(),
        backlog: 1024,
    }
}

#[test]
fn a_site_becomes_a_whole_configuration() {
    let text = render(&site(), &defaults(), "harakiri = 60").unwrap();
    for line in [
        "chdir = /srv/100%% mine",
        "wsgi-file = web/app.py",
        "callable = app",
        "idle = 608",
        "listen = 1024",
        "harakiri = 60",
        "strict = true",
        "need-app = true",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in:\n{text}"
        );
    }
    assert!(!text.contains("virtualenv"));
    let sleepless = Site {
        idle: Some(Idle::Never),
        ..site()
    };
    let sleepless = render(&sleepless, &defaults(), "").unwrap();
    assert!(!sleepless.contains("idle"), "{sleepless}");
    assert_eq!(text, render(&site(), &defaults(), "harakiri = 60").unwrap());
}

#[test]
fn a_hostile_value_is_refused_and_names_its_place() {
    let hostile = Site {
        directory: AbsolutePath::parse("/srv/$(HOME)").unwrap(),
        ..site()
    };
    let problem = render(&hostile, &defaults(), "").unwrap_err().to_string();
    assert!(
        problem.contains("its directory") && problem.contains("set-site"),
        "{problem}"
    );
}

#[test]
fn only_our_own_file_names_are_read_back() {
    let (site, generation) = parse_file_name("12@1795479288.ini").unwrap();
    assert_eq!(file_name(site, generation), "12@1795479288.ini");
    for name in [
        "12.ini",
        "0@1.ini",
        "1@0.ini",
        "01@1.ini",
        "1@1",
        "a@1.ini",
        "1@1@1.ini",
        ".new-x.tmp",
        "+1@2.ini",
    ] {
        assert!(parse_file_name(name).is_none(), "{name}");
    }
}

fn with(change: impl FnOnce(&mut Values)) -> Site {
    let mut values = Values::default();
    change(&mut values);
    Site {
        settings: SiteSettings::new(values).unwrap(),
        ..site()
    }
}

/// The last value of a directive: the one that uWSGI takes.
fn last<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("{name} = ");
    text.lines()
        .filter_map(|line| line.strip_prefix(&start))
        .next_back()
}

#[test]
fn what_a_site_sets_comes_after_the_machine_s_and_the_operator_s_lines() {
    let site = with(|v| {
        (v.workers, v.threads, v.cheaper) = (Some(4), Some(8), Some(1));
        v.harakiri = Some(Span::seconds(90));
        v.max_requests = Some(5000);
        v.buffer_size = crate::model::Bytes::new(8192);
        v.post_buffering = crate::model::Bytes::new(16_384);
        v.statics = vec![StaticMapping::parse("/static=/srv/100% mine/s").unwrap()];
        v.options = std::mem::take(&mut v.options)
            .with(UwsgiOption::parse("lazy-apps").unwrap())
            .unwrap();
    });
    let text = render(&site, &defaults(), "harakiri = 60\nlog-slow = 5").unwrap();
    for (name, value) in [
        ("processes", "4"),
        ("threads", "8"),
        ("cheaper", "1"),
        ("harakiri", "90"),
        ("max-requests", "5000"),
        ("buffer-size", "8192"),
        ("post-buffering", "16384"),
        ("static-map", "/static=/srv/100%% mine/s"),
        ("offload-threads", "1"),
        ("lazy-apps", "true"),
        ("log-slow", "5"),
    ] {
        assert_eq!(last(&text, name), Some(value), "{name} in\n{text}");
    }
}

#[test]
fn a_command_gets_no_line_of_uwsgi_s() {
    let command = Site {
        application: Application::Command(CommandLine::parse("node 'x\'").unwrap()),
        ..site()
    };
    let text = render(&command, &defaults(), "harakiri = 60").unwrap();
    assert!(
        !text.contains("node") && !text.contains("harakiri"),
        "{text}"
    );
    let unsuited = Site {
        settings: with(|v| v.workers = Some(2)).settings,
        ..command
    };
    assert!(render(&unsuited, &defaults(), "").is_err());
}

proptest! {
    /// However hostile the values: refused, or exactly the lines that are meant, each a known name.
    #[test]
    fn no_value_becomes_a_directive(directory in "/[^/\\x00.]{1,40}", pythonpath in "/.{0,40}", index in ".{0,20}") {
        let plain = render(&site(), &defaults(), "").unwrap();
        let mapping = StaticMapping::parse(&format!("/s={directory}"));
        let options = [format!("pythonpath={pythonpath}"), format!("static-index={index}")];
        let options: Vec<_> = options.iter().filter_map(|text| UwsgiOption::parse(text).ok()).collect();
        let hostile = with(|v| {
            v.statics.extend(mapping.ok());
            for option in options {
                v.options = std::mem::take(&mut v.options).with(option).unwrap();
            }
        });
        if let Ok(text) = render(&hostile, &defaults(), "") {
            let known = |line: &str| {
                plain.lines().any(|other| other == line)
                    || ["static-map = /s=/", "pythonpath = /", "static-index = "].iter().any(|start| line.starts_with(start))
                    || line == "offload-threads = 1"
                    || line.starts_with(';')
            };
            for line in text.split(['\n', '\r', '\u{85}', '\u{2028}']) {
                prop_assert!(known(line), "{line:?}");
            }
        }
    }
}

use super::*;
use proptest::prelude::*;

#[test]
fn the_list_is_in_order_and_has_no_dangerous_name() {
    let names: Vec<_> = ALLOWED.iter().map(|option| option.name).collect();
    for (name, dangerous) in names.iter().flat_map(|name| {
        [
            "exec", "hook", "emperor", "cgroup", "uid", "gid", "plugin", "ini", "include",
            "socket", "env", "route", "attach", "touch", "spool", "mule",
        ]
        .map(|word| (name, word))
    }) {
        assert!(name.split('-').next() != Some(dangerous), "{name}");
    }
    let mut once = names.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), names.len(), "each once");
}

#[test]
fn dangerous_options_are_refused_and_told_why() {
    for (name, word) in [
        ("exec-pre-app=touch /tmp/x", "run code"),
        ("exec_pre_app=touch /tmp/x", "run code"),
        ("hook-as-root=exec:id", "run code"),
        ("import=os", "run code"),
        ("emperor=/etc", "other sites"),
        ("vassals-include=/x", "other sites"),
        ("cgroup=/x", "platform's"),
        ("uid=0", "platform's"),
        ("gid=0", "platform's"),
        ("plugin=cgi", "native code"),
        ("plugins=cgi", "native code"),
        ("ini=/tmp/x.ini", "further configuration"),
        ("include=/tmp/x.ini", "further configuration"),
        ("inherit=/tmp/x.ini", "further configuration"),
        ("set-placeholder=a=b", "further configuration"),
        ("if-env=X", "further configuration"),
        ("socket=/tmp/s", "platform's"),
        ("http-socket=:80", "platform's"),
        ("master-fifo=/tmp/f", "platform's"),
        ("safe-fd=3", "platform's"),
        ("attach-daemon=sh", "--command"),
        ("logto=/etc/passwd", "paasctl logs"),
        ("env=A=B", "set-env"),
        ("workers=4", "--workers"),
        ("static-map=/a=/b", "--static"),
        ("virtualenv=/x", "--venv"),
        ("module=x", "--entry"),
        ("idle=1", "--idle"),
        ("py-autoreload=1", "platform"),
        ("route=.* file:/etc/passwd", "application's"),
        ("nonsense=1", "list-options"),
        ("", "list-options"),
    ] {
        let problem = UwsgiOption::parse(name).unwrap_err().to_string();
        assert!(problem.contains(word), "{name}: {problem}");
    }
}

#[test]
fn values_are_checked() {
    for (text, value) in [
        ("lazy-apps", "true"),
        ("lazy_apps=true", "true"),
        ("reload-on-rss=256", "256"),
        ("reload-on-rss = 0256", "256"),
        ("cheaper-algo=backlog", "backlog"),
        ("static-index=index.html", "index.html"),
        ("pythonpath=/srv/a/lib/", "/srv/a/lib"),
    ] {
        assert_eq!(UwsgiOption::parse(text).unwrap().value, value, "{text}");
    }
    for bad in [
        "lazy-apps=false",
        "lazy-apps=",
        "reload-on-rss",
        "reload-on-rss=",
        "reload-on-rss=-1",
        "reload-on-rss=+256",
        "reload-on-rss=1",
        "reload-on-rss=99999999999999999999999",
        "reload-on-rss=256\nexec-asap=id",
        "cheaper-algo=manual",
        "static-index=../x",
        "static-index=..",
        "pythonpath=lib",
        "pythonpath=/a\nexec-asap=id",
    ] {
        assert!(UwsgiOption::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn contradictions_are_refused() {
    let set = |texts: &[&str]| {
        texts
            .iter()
            .try_fold(UwsgiOptions::default(), |options, text| {
                options.with(UwsgiOption::parse(text).unwrap())
            })
    };
    assert!(set(&["limit-as=512", "reload-on-rss=256"]).is_ok());
    let problem = set(&["limit-as=256", "reload-on-rss=256"])
        .unwrap_err()
        .to_string();
    assert!(problem.contains("limit-as"), "{problem}");
    assert!(set(&["min-worker-lifetime=600", "max-worker-lifetime=300"]).is_err());
    let stored =
        serde_json::from_str::<UwsgiOptions>(r#"{"limit-as":"256","reload-on-rss":"256"}"#);
    assert!(stored.is_err(), "nor are they taken from the registry");
    assert!(serde_json::from_str::<UwsgiOptions>(r#"{"exec-asap":"id"}"#).is_err());
}

proptest! {
    /// Whatever is typed: what is taken is a known name and a value on one line.
    #[test]
    fn nothing_hostile_is_taken(name in "[a-z_-]{0,20}", known in 0..ALLOWED.len(), value in any::<String>()) {
        for name in [name.as_str(), ALLOWED[known].name] {
            if let Ok(option) = UwsgiOption::parse(&format!("{name}={value}")) {
                prop_assert!(ALLOWED.iter().any(|allowed| allowed.name == option.name.as_str()));
                prop_assert!(!option.value.chars().any(char::is_control));
            }
        }
    }

    #[test]
    fn what_is_stored_is_read_back(known in 0..ALLOWED.len(), number in 16_u64..64) {
        let allowed = &ALLOWED[known];
        let value = match allowed.takes {
            Takes::Switch => "true".to_owned(),
            Takes::Word(words) => words[0].to_owned(),
            Takes::FileName => "index.html".to_owned(),
            Takes::Path => "/srv".to_owned(),
            Takes::Number { least, most, .. } => number.clamp(least, most).to_string(),
        };
        let option = UwsgiOption::parse(&format!("{}={value}", allowed.name)).unwrap();
        let options = UwsgiOptions::default().with(option).unwrap();
        let stored = serde_json::to_string(&options).unwrap();
        prop_assert_eq!(serde_json::from_str::<UwsgiOptions>(&stored).unwrap(), options);
    }
}

#[test]
fn the_documentation_lists_every_option() {
    let page = include_str!("../../../../docs/site-settings.md");
    for Allowed { name, takes, does } in ALLOWED {
        let row = format!("| `{name}` | {takes} | {does} |");
        assert!(page.contains(&row), "docs/site-settings.md lacks: {row}");
    }
}

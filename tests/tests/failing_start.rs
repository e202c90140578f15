//! A start that fails: everybody who waited gets the page at once, and the next visit tries again.

use std::thread;
use std::time::Instant;

use paas_tests::{Platform, Request, Response, Root, process, wait};

#[track_caller]
fn assert_failure_page(answer: &Response) {
    let page = answer.expect(503);
    assert!(
        answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/html")),
        "{answer:?}"
    );
    let wait = answer
        .header("retry-after")
        .and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(wait.is_some_and(|seconds| seconds > 0), "{answer:?}");
    assert_has_id(answer);
    assert!(
        !page.contains("Traceback") && !page.contains("/sites/"),
        "visitors are not shown the site's insides: {page}"
    );
}

/// By which the operator finds what happened.
#[track_caller]
fn assert_has_id(answer: &Response) {
    let page = answer.text();
    let id = page
        .split_once(">503 ")
        .and_then(|(_, said)| said.split('<').next())
        .and_then(|said| said.split(' ').nth(1))
        .unwrap_or_else(|| panic!("no id: {answer:?}"));
    assert!(
        id.len() >= 6
            && id
                .chars()
                .all(|letter| letter.is_ascii_digit() || letter == '-'),
        "{id}"
    );
}

#[test]
fn everybody_who_was_parked_gets_the_page_within_a_second_of_the_failure() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    site.close();
    site.set("broken");
    let port = platform.port();
    let parked: Vec<_> = (0..20)
        .map(|number| {
            let request = if number % 2 == 0 {
                Request::get("a.test", "/")
            } else {
                Request::post("a.test", "/", "x")
            };
            thread::spawn(move || (request.send(port), Instant::now()))
        })
        .collect();
    platform.wait_for_parked("a.test", 20);
    let failure = Instant::now();
    site.open();
    for request in parked {
        let (answer, at) = request.join().expect("an answer");
        assert_failure_page(&answer);
        // The start time-out is 60 s: this came from the failure itself. The machine may be busy.
        let took = at.duration_since(failure);
        assert!(took.as_secs() < 10, "{took:?} after the failure");
    }
    assert_eq!((site.starts(), site.requests().len()), (1, 0));
    platform.assert_healthy();
}

#[test]
fn a_repaired_site_is_up_at_the_next_visit() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    site.set("broken");
    assert_failure_page(&platform.get("a.test", "/"));
    site.unset("broken");
    // At most one start a second: a visit before that is told to come again.
    wait::until_true("the repaired site", || {
        platform.get("a.test", "/").status == 200
    });
    platform.assert_healthy();
}

#[test]
fn a_failing_site_does_not_eat_the_machine() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    site.set("broken");
    let begin = Instant::now();
    for _ in 0..100 {
        assert_failure_page(&platform.get("a.test", "/"));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let starts = site.starts();
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let rate = starts as f64 / (seconds + 1.0);
    assert!(rate <= 1.5, "{starts} starts in {seconds} s");
    platform.assert_healthy();
}

/// A site that notes each import and then fails, in the file of its entry point, and has done so until it is held back.
fn held_back<'r>(root: &'r Root, platform: &Platform<'r>, name: &str) -> Failing {
    let directory = root.join(format!("sites/{name}"));
    let site = Failing {
        name: name.to_owned(),
        app: directory.join("app.py"),
        notes: directory.join("notes"),
    };
    std::fs::create_dir_all(&site.notes).expect("ours");
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&site.notes, all).expect("ours");
    std::fs::write(&site.app, FAILS).expect("ours");
    let entry = ["--entry", "app:application", "--no-check"];
    platform.add_site(name, &directory, &entry);
    wait::until_true("six starts", || {
        assert_failure_page(&platform.get(name, "/"));
        site.starts() >= 6
    });
    site
}

const FAILS: &str = "import os\n\
    notes = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'notes')\n\
    open(os.path.join(notes, str(os.times().elapsed)), 'w').close()\n\
    if os.environ.get('MENDED') is None: raise RuntimeError('broken')\n\
    def application(e, s):\n    s('200 OK', [])\n    return [b'fine']\n";

struct Failing {
    name: String,
    app: std::path::PathBuf,
    notes: std::path::PathBuf,
}

impl Failing {
    fn starts(&self) -> usize {
        std::fs::read_dir(&self.notes).expect("ours").count()
    }

    /// Its visitors are answered, and that starts nothing, for longer than the pause between the first starts.
    fn assert_left_alone(&self, platform: &Platform<'_>) {
        let (begin, before) = (Instant::now(), self.starts());
        let mut visits = 0;
        while begin.elapsed().as_millis() < 2500 {
            assert_failure_page(&platform.get(&self.name, "/"));
            visits += 1;
        }
        assert!(visits > 10, "{visits} visits");
        assert_eq!(self.starts(), before, "no start in {:?}", begin.elapsed());
    }
}

#[test]
fn what_goes_on_failing_is_left_alone_until_its_code_or_its_settings_change() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = held_back(&root, &platform, "a.test");
    site.assert_left_alone(&platform);
    // What is no better is tried once more, and counts from the beginning: the same file, written in place.
    std::fs::write(&site.app, FAILS).expect("ours");
    assert_failure_page(&platform.get("a.test", "/"));
    assert_eq!(site.starts(), 7);

    let site = held_back(&root, &platform, "b.test");
    std::fs::write(&site.app, FAILS.replace("is None", "is not None")).expect("ours");
    wait::until_true("the mended code", || {
        platform.get("b.test", "/").status == 200
    });
    assert_eq!(site.starts(), 7);

    let site = held_back(&root, &platform, "c.test");
    platform.paasctl().ok(&["set-env", "c.test", "MENDED=1"]);
    wait::until_true("the mended settings", || {
        platform.get("c.test", "/").status == 200
    });
    assert_eq!(site.starts(), 7);
    platform.assert_healthy();
}

#[test]
fn an_order_starts_at_once_what_is_left_alone() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = held_back(&root, &platform, "a.test");
    for (number, order) in ["start-site", "reload-site"].iter().enumerate() {
        let outcome = platform.paasctl().run(&[order, "a.test"]);
        assert!(
            !outcome.success && outcome.out.contains("broken"),
            "{outcome:?}"
        );
        assert_eq!(site.starts(), 7 + number, "{order}");
    }
    platform.assert_healthy();
}

#[test]
fn every_cause_ends_in_a_page() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let causes: [(&str, &str); 4] = [
        ("syntax.test", "def application(:\n"),
        ("import.test", "import no_such_module_anywhere\n"),
        (
            "missing.test",
            "application_is_spelled_differently = None\n",
        ),
        ("exit.test", "import os\nos._exit(3)\n"),
    ];
    for (domain, source) in causes {
        let directory = root.join(format!("sites/{domain}"));
        root.write(
            format!("sites/{domain}/app.py"),
            "def application(e, s):\n    s('200 OK', [])\n    return [b'fine']\n",
        );
        platform.add_site(domain, &directory, &["--entry", "app:application"]);
        root.write(format!("sites/{domain}/app.py"), source);
    }
    for (domain, _) in causes {
        let begin = Instant::now();
        assert_failure_page(&platform.get(domain, "/"));
        assert!(
            begin.elapsed().as_secs() < 30,
            "{domain}: well before the start time-out of 60 s"
        );
    }
    // A directory that went away.
    let directory = root.join("sites/gone.test");
    root.write(
        "sites/gone.test/app.py",
        "def application(e, s):\n    s('200 OK', [])\n    return [b'fine']\n",
    );
    platform.add_site("gone.test", &directory, &["--entry", "app:application"]);
    std::fs::remove_dir_all(&directory).expect("ours");
    assert_failure_page(&platform.get("gone.test", "/"));
    platform.assert_healthy();
}

#[test]
fn a_start_that_never_ends_is_given_up() {
    let root = Root::new();
    let platform = Platform::with(
        &root,
        paas_tests::platform::Options {
            backend: "[backend]\nstart_timeout = \"2s\"\n".to_owned(),
            ..Default::default()
        },
    );
    let site = platform.recorder("a.test");
    site.close();
    assert_failure_page(&platform.get("a.test", "/"));
    wait::until_true("its processes to be gone", || {
        platform.site_processes("a.test").is_empty()
    });
    site.open();
    wait::until_true("the site to be up", || {
        platform.get("a.test", "/").status == 200
    });
    platform.assert_healthy();
}

#[test]
fn requests_queued_on_a_crashed_site_that_cannot_start_again_get_the_page() {
    let root = Root::new();
    let platform = Platform::start(&root);
    let site = platform.recorder("a.test");
    let master = process::master(&platform.get("a.test", "/"));
    // Both workers are busy, so the others stay in the queue of the socket.
    let port = platform.port();
    let held: Vec<_> = (0..2)
        .map(|_| thread::spawn(move || Request::post("a.test", "/hold", "x").send(port)))
        .collect();
    site.wait_for("POST", "/hold", 2);
    let queued: Vec<_> = (0..10)
        .map(|_| {
            thread::spawn(move || {
                (
                    Request::post("a.test", "/queued", "x").send(port),
                    Instant::now(),
                )
            })
        })
        .collect();
    wait::until_true("ten in the queue", || platform.queue_length("a.test") >= 10);
    site.set("broken");
    let failure = Instant::now();
    paas_tests::process::send(master, rustix::process::Signal::KILL);
    for request in queued {
        let (answer, at) = request.join().expect("an answer");
        assert_failure_page(&answer);
        assert!(
            at.duration_since(failure).as_secs() < 20,
            "well before the start time-out of 60 s"
        );
    }
    for request in held {
        assert_eq!(
            request.join().expect("an answer").status,
            502,
            "it ran and is not repeated"
        );
    }
    assert_eq!(
        (site.ran("POST", "/queued"), site.ran("POST", "/hold")),
        (0, 2)
    );
    platform.assert_healthy();
}

//! Directories as users bring them, and what is guessed of them.

use super::*;
use std::fs;
use tempfile::TempDir;

fn site(files: &[(&str, &str)]) -> TempDir {
    let site = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = site.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    site
}

fn guessed(files: &[(&str, &str)]) -> (Framework, String) {
    let guess = guess(site(files).path()).unwrap();
    (guess.framework, guess.entry.to_string())
}

fn refused(files: &[(&str, &str)]) -> String {
    guess(site(files).path()).unwrap_err().to_string()
}

fn is(framework: Framework, entry: &str) -> (Framework, String) {
    (framework, entry.to_owned())
}

const FLASK: &str = "from flask import Flask\napp = Flask(__name__)\n";
const MANAGE: &str = "import os, sys\ndef main():\n    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n    from django.core.management import execute_from_command_line\n";
const WSGI: &str =
    "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n";

#[test]
fn the_examples_are_guessed() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for (name, framework, entry) in [
        ("smallest", Framework::Wsgi, "app:application"),
        ("bottle", Framework::Bottle, "app:application"),
        ("flask", Framework::Flask, "app:app"),
        ("django", Framework::Django, "project.wsgi:application"),
        ("../tests/apps/probe", Framework::Wsgi, "app:application"),
    ] {
        let guess = guess(&examples.join(name)).unwrap();
        assert_eq!(
            (guess.framework, guess.entry.to_string().as_str()),
            (framework, entry),
            "{name}"
        );
    }
}

#[test]
fn django_by_its_manage_py() {
    assert_eq!(
        guessed(&[
            ("manage.py", MANAGE),
            ("shop/wsgi.py", WSGI),
            ("other/wsgi.py", WSGI)
        ]),
        is(Framework::Django, "shop.wsgi:application")
    );
    let manage = MANAGE.replace("shop.settings", "config.settings.production");
    assert_eq!(
        guessed(&[("manage.py", &manage), ("config/wsgi.py", WSGI)]),
        is(Framework::Django, "config.wsgi:application")
    );
    let manage = "import decouple\nfrom django.core.management import execute_from_command_line\n";
    assert_eq!(
        guessed(&[("manage.py", manage), ("shop/wsgi.py", WSGI)]),
        is(Framework::Django, "shop.wsgi:application")
    );
    let error = refused(&[
        ("manage.py", manage),
        ("a/wsgi.py", WSGI),
        ("b/wsgi.py", WSGI),
    ]);
    assert!(
        error.contains("--entry a.wsgi:application")
            && error.contains("--entry b.wsgi:application"),
        "{error}"
    );
    assert!(refused(&[("manage.py", MANAGE)]).contains("no package beside it has a wsgi.py"));
}

#[test]
fn flask_as_an_object_a_factory_or_behind_a_wsgi_py() {
    assert_eq!(
        guessed(&[("app.py", FLASK)]),
        is(Framework::Flask, "app:app")
    );
    assert_eq!(
        guessed(&[("site_.py", "import flask\nserver = flask.Flask('x')")]),
        is(Framework::Flask, "site_:server")
    );
    assert_eq!(
        guessed(&[
            ("app.py", FLASK),
            ("wsgi.py", "from app import app as application\n")
        ]),
        is(Framework::Flask, "wsgi:application")
    );
    assert_eq!(
        guessed(&[
            ("app.py", FLASK),
            (
                "main.py",
                "from app import app\nif __name__ == '__main__':\n    app.run()\n"
            )
        ]),
        is(Framework::Flask, "main:app")
    );
    let factory = "from flask import Flask\ndef create_app(config=None):\n    app = Flask(__name__)\n    return app\n";
    assert_eq!(
        guessed(&[("shop/__init__.py", factory)]),
        is(Framework::Flask, "shop:create_app()")
    );
    assert_eq!(
        guessed(&[
            ("shop/__init__.py", factory),
            (
                "wsgi.py",
                "from shop import create_app\napp = create_app()\n"
            )
        ]),
        is(Framework::Flask, "wsgi:app")
    );
    let wants = factory.replace("config=None", "config");
    assert!(
        refused(&[("shop/__init__.py", &wants)])
            .contains("create_app() in shop/__init__.py wants arguments")
    );
    assert_eq!(
        guessed(&[(
            "app.py",
            "from flask import Flask\napp = Flask('x')\napplication = ProxyFix(app)\n"
        )]),
        is(Framework::Flask, "app:application")
    );
    assert_eq!(
        guessed(&[
            ("app.py", FLASK),
            ("models.py", "from app import app\n"),
            ("test_app.py", FLASK)
        ]),
        is(Framework::Flask, "app:app")
    );
}

#[test]
fn bottle_web2py_and_plain_wsgi() {
    assert_eq!(
        guessed(&[(
            "index.py",
            "import bottle\napplication = bottle.default_app()"
        )]),
        is(Framework::Bottle, "index:application")
    );
    assert_eq!(
        guessed(&[("app.py", "from bottle import *\napp = Bottle()")]),
        is(Framework::Bottle, "app:app")
    );
    let bare = "from bottle import route, run\n@route('/')\ndef page(): return ''\nrun()\n";
    assert!(refused(&[("app.py", bare)]).contains("application = bottle.default_app()"));
    assert_eq!(
        guessed(&[("gluon/main.py", ""), ("wsgihandler.py", "")]),
        is(Framework::Web2py, "wsgihandler:application")
    );
    assert!(
        refused(&[("gluon/main.py", ""), ("handlers/wsgihandler.py", "")])
            .contains("cp handlers/wsgihandler.py .")
    );
    for file in ["wsgi", "app", "main", "passenger_wsgi", "application"] {
        let text = "def application(environ, start_response):\n    return []\n";
        assert_eq!(
            guessed(&[(&format!("{file}.py"), text)]),
            is(Framework::Wsgi, &format!("{file}:application"))
        );
    }
    assert_eq!(
        guessed(&[("passenger_wsgi.py", WSGI)]),
        is(Framework::Django, "passenger_wsgi:application")
    );
}

#[test]
fn several_are_listed_and_none_says_what_to_give() {
    let error = refused(&[("app.py", FLASK), ("shop.py", FLASK)]);
    assert!(
        error.contains("--entry app:app   (app.py line 2: app = Flask(...))")
            && error.contains("--entry shop:app"),
        "{error}"
    );
    let error = refused(&[("README", "")]);
    assert!(
        error.contains("no WSGI application was found")
            && error.contains("--entry app:application"),
        "{error}"
    );
    let error = refused(&[("src/app.py", FLASK)]);
    assert!(
        error.contains("is the subdirectory src the site's directory?"),
        "{error}"
    );
    let error = refused(&[("main.py", "from fastapi import FastAPI\napp = FastAPI()")]);
    assert!(error.contains("ASGI"), "{error}");
    assert!(refused(&[("app.py", "def app(request): pass")]).contains("no WSGI application"));
    assert!(
        guess(Path::new("/nonexistent/site"))
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
}

#[test]
fn links_devices_and_hostile_names_are_harmless() {
    let elsewhere = site(&[("app.py", FLASK)]);
    let lured = site(&[("a\nb.py", FLASK), ("b;c.py", FLASK), ("1.py", FLASK)]);
    std::os::unix::fs::symlink(elsewhere.path().join("app.py"), lured.path().join("app.py"))
        .unwrap();
    std::os::unix::fs::symlink("/dev/zero", lured.path().join("main.py")).unwrap();
    std::os::unix::fs::symlink("loop.py", lured.path().join("loop.py")).unwrap();
    let pipe = lured.path().join("wsgi.py");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let error = guess(lured.path()).unwrap_err();
    assert!(matches!(error, GuessError::Nothing { .. }), "{error}");

    let large = format!("{}\n{FLASK}", "#".repeat(1024 * 1024));
    assert!(
        refused(&[("app.py", &large)]).contains("no WSGI application"),
        "what lies beyond the bound is not read"
    );
    assert!(refused(&[("app.py", &"(".repeat(200_000))]).contains("no WSGI application"));
}

#[test]
fn a_virtualenv_of_another_python_stops_the_guess() {
    let error = refused(&[
        ("app.py", FLASK),
        ("venv/pyvenv.cfg", "home = /opt\nversion = 3.4.1\n"),
    ]);
    assert!(
        error.contains("was made with Python 3.4, uWSGI runs Python"),
        "{error}"
    );
}

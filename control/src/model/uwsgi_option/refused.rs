//! Why an option is refused: by the families of uWSGI's options.

/// Names or beginnings of names (with a `*` at their end), and what is to be said.
const REASONS: &[(&str, &str)] = &[
    (
        "processes workers threads cheaper harakiri max-requests buffer-size post-buffering p t",
        "it has a setting of its own, which is checked: `paasctl set-site --workers, --threads, --cheaper, --harakiri, --max-requests, --buffer-size, --post-buffering`",
    ),
    (
        "static-map* check-static* static-check* static-safe docroot",
        "static files have a setting of their own: `paasctl set-site --static URL=DIRECTORY`",
    ),
    (
        "env unenv envdir*",
        "the environment has commands of its own: `paasctl set-env`, `unset-env`, `list-env`",
    ),
    (
        "idle die-on-idle cheap",
        "when a site sleeps is the platform's matter: `paasctl set-site --idle`",
    ),
    (
        "virtualenv venv home pyhome",
        "the virtualenv has a setting of its own: `paasctl set-site --venv`",
    ),
    (
        "chdir* module wsgi wsgi-file file callable mount manage-script-name paste* pecan eval pyrun pyargv \
         app web3* pump* wsgi-lite",
        "what a site runs has settings of its own: `paasctl set-site --dir, --entry`",
    ),
    (
        "exec* hook* cmd* as-* call-* pre-* privileged-* shell* shared-* import* python-import pyimport \
         py-import spooler-*import rpc* alarm* cron* unique-cron* legion-cron* python-worker-override on-*",
        "it would run code at a moment that the platform does not know of; the application can do so itself when it is imported",
    ),
    (
        "attach-daemon* smart-attach-daemon* legion* daemons-* mule* farm* spooler* worker-exec* gateway* \
         erlang* matheval",
        "further programs beside a site are not run; a program that is a site of its own is added with `paasctl add-site --command`",
    ),
    (
        "emperor* vassal* vassals* zerg* broodlord* zeus* bird*",
        "a site does not command other sites",
    ),
    (
        "cgroup* ns* chroot pivot-root unshare* cap* uid* gid* add-gid additional-gids setuid setgid drop-* \
         ksm rlimit* namespace* jail* keep-mount forkpty* fork-server setns* limit-nproc prio cpu-affinity \
         scheduler reaper refork* emulate* no-new-privs wait-for* never-swap",
        "who a site is, what it sees and how much it may take is the platform's matter",
    ),
    (
        "plugin* need-plugin* plugins* autoload dlopen binary-path symbol-* symcall* dot-h",
        "it would load native code into uWSGI itself",
    ),
    (
        "ini* include inherit* yaml yml json* xml* config* ldap* sqlite* zmq* pgsql* set* if-* for* end* \
         declare-option custom-options strict show-config var skip-* magic-table resolve loop opt",
        "it would read further configuration past the list of options",
    ),
    (
        "socket* uwsgi-* http* https* fastcgi* scgi* raw* suwsgi* puwsgi* udp upd* listen map-socket stats* \
         carbon* snmp* metric* subscri* fastrouter* sslrouter* rawrouter* corerouter* ssl* sni* multicast* \
         master-fifo notify* freebind reuse-port abstract-socket protocol undeferred-* shared-socket chmod* \
         chown* umask safe-fd close-on-exec* honour-stdin socket-timeout cache* queue* sharedarea* lock* ftok \
         proxy* honour-*",
        "sockets, and what listens and is shared beside the site, are the platform's",
    ),
    (
        "log* daemonize* req-logger logger* rsyslog* syslog* disable-logging touch-log* L",
        "the logs are the platform's: `paasctl logs` shows them",
    ),
    (
        "touch* fs-* py-auto* python-auto* auto-* reload-on-fd reload* worker-reload* no-orphans \
         exit-on-reload die* master* need-app no-default-app single-interpreter enable-threads pidfile* \
         safe-pid* vacuum max-fd procname* auto-procname chain* hup* heartbeat* lazy master-as-root crash* \
         backtrace* pcre* minimal* py-tracebacker py-sharedarea profiler worker-mercy* mercy* thread* async* \
         ugreen gevent* greenlet asyncio tornado pypy* coroae* fiber eventlet",
        "how a site is started, watched and ended is the platform's matter",
    ),
    (
        "route* error-route* final-route* response-route* goto* static-* add-header del-header collect-header \
         response-header* error-page* rewrite* cgi* php* ruby* rack* perl* psgi* lua* gccgo* v8* mono* jvm* \
         rados* gridfs* webdav* glusterfs* ssi* xslt* tuntap* transformation*",
        "what is answered to which request is the application's matter",
    ),
];

/// What to tell whoever wanted the option `name`.
pub(super) fn why(name: &str) -> String {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    let known = REASONS
        .iter()
        .find(|(patterns, _)| patterns.split_whitespace().any(matches));
    match known {
        Some((_, reason)) => (*reason).to_owned(),
        None => "it is not on the list, which `paasctl list-options` shows; the operator's lines for all sites of a machine lie in etc/paas/vassal.d".to_owned(),
    }
}

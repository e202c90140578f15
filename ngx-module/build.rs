//! Passes on what nginx-sys found out about the nginx we build against, as `cfg`s, and refuses an
//! nginx that the module does not know. Says how the module is linked.

/// The oldest nginx this module builds against, in nginx's own notation (1.22.0).
const OLDEST: u64 = 1_022_000;

fn main() {
    println!(
        "cargo::rustc-check-cfg=cfg(ngx_feature, values({}))",
        setting("FEATURES_CHECK")
    );
    println!(
        "cargo::rustc-check-cfg=cfg(ngx_os, values({}))",
        setting("OS_CHECK")
    );
    for feature in setting("FEATURES")
        .split(',')
        .map(str::trim)
        .filter(|feature| !feature.is_empty())
    {
        println!("cargo::rustc-cfg=ngx_feature=\"{feature}\"");
    }
    println!("cargo::rustc-cfg=ngx_os=\"{}\"", setting("OS"));

    let version = setting("VERSION_NUMBER");
    match version.parse::<u64>() {
        Ok(number) if number >= OLDEST => {}
        _ => refuse(&format!(
            "nginx {} ({version}) is too old: 1.22.0 or later is needed",
            setting("VERSION")
        )),
    }
    println!("cargo::rustc-check-cfg=cfg(nginx_headers_are_linked)");
    if version
        .parse::<u64>()
        .is_ok_and(|number| number >= 1_023_000)
    {
        println!("cargo::rustc-cfg=nginx_headers_are_linked");
    }
    // `server NAME resolve` came with 1.27.3.
    println!("cargo::rustc-check-cfg=cfg(nginx_servers_resolve)");
    if version
        .parse::<u64>()
        .is_ok_and(|number| number >= 1_027_003)
    {
        println!("cargo::rustc-cfg=nginx_servers_resolve");
    }
    // nginx loads modules so that all see each other's symbols. Without the first, a new build of this module that is loaded
    // beside the old one would find the old one's tables in place of its own, and the old code would go on. Without the
    // second, a configuration that is refused would take the code away that nginx's chain of filters leads to by then.
    println!("cargo::rustc-link-arg-cdylib=-Wl,-Bsymbolic,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}

/// What nginx-sys says under `DEP_NGINX_<name>`.
fn setting(name: &str) -> String {
    let variable = format!("DEP_NGINX_{name}");
    println!("cargo::rerun-if-env-changed={variable}");
    std::env::var(&variable).unwrap_or_else(|_| {
        refuse(&format!("{variable} is not set: build the module with scripts/build-module, which finds nginx's headers"))
    })
}

fn refuse(why: &str) -> ! {
    println!("cargo::error={why}");
    std::process::exit(1)
}

//! `paas_eject`: when a backend of the table is left out because it fails.

use std::ffi::CStr;

use ngx::ffi::{NGX_CONF_1MORE, NGX_HTTP_MAIN_CONF};

use super::{HttpConf, text, unset};
use crate::ffi::conf::{Conf, Directive, Refusal, milliseconds};

/// `paas_eject [failures=NUMBER] [time=TIME] [max_time=TIME] [return=TIME];` or `paas_eject off;`
pub(crate) struct PaasEject;

impl Directive for PaasEject {
    type Target = HttpConf;
    const NAME: &'static CStr = c"paas_eject";
    const USE: u32 = NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE;

    fn read(conf: Conf<'_>, http: &mut HttpConf) -> Result<(), Refusal> {
        if std::mem::replace(&mut http.is_eject_set, true) {
            return Err("is duplicate".to_owned());
        }
        let settings = &mut http.eject;
        if conf.arguments().eq([b"off"]) {
            settings.failures = 0;
            return Ok(());
        }
        let (mut failures, mut time, mut max_time, mut return_time) = (None, None, None, None);
        for argument in conf.arguments() {
            let shown = argument.escape_ascii();
            let mut halves = argument.splitn(2, |byte| *byte == b'=');
            let (name, value) = (
                halves.next().unwrap_or_default(),
                halves.next().unwrap_or_default(),
            );
            let place = match name {
                b"failures" => {
                    unset(&failures).map_err(|_| "has two of \"failures\"")?;
                    let number = text(value)?.parse().ok().filter(|number| *number > 0);
                    failures = Some(number.ok_or_else(|| {
                        format!("\"{shown}\" is not a number from 1 to 255 (\"off\" ejects nobody)")
                    })?);
                    continue;
                }
                b"time" => &mut time,
                b"max_time" => &mut max_time,
                b"return" => &mut return_time,
                _ => return Err(format!("does not know the argument \"{shown}\"")),
            };
            unset(place).map_err(|_| format!("has two of \"{}\"", name.escape_ascii()))?;
            let span = milliseconds(value)
                .ok_or_else(|| format!("\"{shown}\" is not a time, like 30s or 500ms"))?;
            *place = Some(span as u64);
        }
        if time == Some(0) {
            return Err("\"time\" must be more than 0".to_owned());
        }
        settings.failures = failures.unwrap_or(settings.failures);
        settings.time = time.unwrap_or(settings.time);
        settings.max_time = max_time.unwrap_or(settings.max_time).max(settings.time);
        settings.return_time = return_time.unwrap_or(settings.return_time);
        Ok(())
    }
}

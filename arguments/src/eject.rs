//! `paas_eject [failures=NUMBER] [time=TIME] [max_time=TIME] [return=TIME];` or `paas_eject off;`

use routing::health::Settings;

use crate::{A_TIME, Named, ReadTime, Refusal, number};

/// When a backend is left out because it fails; what is not said is as it is by default.
///
/// # Errors
/// What is wrong with the words.
pub fn eject<'a>(
    words: impl Iterator<Item = &'a [u8]> + Clone,
    read_time: ReadTime,
) -> Result<Settings, Refusal> {
    let default = Settings::default();
    if words.clone().eq([b"off"]) {
        return Ok(Settings {
            failures: 0,
            ..default
        });
    }
    let span = |value: &[u8]| u64::try_from(read_time(value)?).ok();
    let (mut failures, mut time, mut max_time, mut return_time) = (None, None, None, None);
    for argument in words.map(Named::from) {
        let place = match argument.name {
            b"failures" => {
                let expected = "a number from 1 to 255 (\"off\" ejects nobody)";
                let read = |value: &[u8]| number(value).filter(|number: &u8| *number > 0);
                argument.once(&mut failures, expected, read)?;
                continue;
            }
            b"time" => &mut time,
            b"max_time" => &mut max_time,
            b"return" => &mut return_time,
            _ => return Err(argument.unknown()),
        };
        argument.once(place, A_TIME, span)?;
    }
    if time == Some(0) {
        return Err("\"time\" must be more than 0".to_owned());
    }
    let time = time.unwrap_or(default.time);
    Ok(Settings {
        failures: failures.unwrap_or(default.failures),
        time,
        max_time: max_time.unwrap_or(default.max_time).max(time),
        return_time: return_time.unwrap_or(default.return_time),
    })
}

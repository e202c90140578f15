//! From the reviewed list of system calls, `allowed.txt`, to the program that the kernel runs. Part of the build script and of
//! the tests; nothing of it is in the launcher.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use seccompiler::{BpfProgram, TargetArch};

/// What a call that is not on the list gets.
const ENOSYS: u32 = 38;

/// The filter for `architecture` (as Rust's targets call it), in the bytes of an array of the kernel's `sock_filter`.
pub fn compile(list: &str, architecture: &str) -> Result<Vec<u8>, String> {
    let target = TargetArch::try_from(architecture).map_err(|error| error.to_string())?;
    let json = json(list, architecture)?;
    let mut programs = seccompiler::compile_from_json(json.as_bytes(), target)
        .map_err(|error| format!("for {architecture}: {error}"))?;
    let program: BpfProgram = programs.remove("site").ok_or("the filter is gone")?;
    // Little-endian, as both architectures are.
    let bytes = program.iter().flat_map(|instruction| {
        let [k0, k1, k2, k3] = instruction.k.to_le_bytes();
        let [low, high] = instruction.code.to_le_bytes();
        [low, high, instruction.jt, instruction.jf, k0, k1, k2, k3]
    });
    Ok(bytes.collect())
}

/// The list in the form that `seccompiler` reads.
fn json(list: &str, architecture: &str) -> Result<String, String> {
    let mut calls: BTreeMap<&str, Vec<Option<String>>> = BTreeMap::new();
    for (number, line) in (1..).zip(list.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("line {number}: {what}: {line}");
        let line = match line.split_once(": ") {
            Some((only, rest)) if only == architecture => rest,
            Some(_) => continue,
            None => line,
        };
        let (name, conditions) = line.split_once(' ').unwrap_or((line, ""));
        let rule = match conditions {
            "" => None,
            _ => {
                let parts: Option<Vec<String>> = conditions.split(" and ").map(condition).collect();
                Some(parts.ok_or_else(|| wrong("not a condition"))?.join(","))
            }
        };
        let rules = calls.entry(name).or_default();
        if rules.contains(&rule) || (!rules.is_empty() && (rule.is_none() || rules.contains(&None)))
        {
            return Err(wrong("said twice"));
        }
        rules.push(rule);
    }
    let mut json = format!(
        r#"{{"site":{{"mismatch_action":{{"errno":{ENOSYS}}},"match_action":"allow","filter":["#
    );
    let mut comma = "";
    for (name, rules) in &calls {
        for rule in rules {
            let arguments = rule
                .as_ref()
                .map_or(String::new(), |rule| format!(r#","args":[{rule}]"#));
            // Writing to a string cannot fail.
            let _ = write!(json, r#"{comma}{{"syscall":"{name}"{arguments}}}"#);
            comma = ",";
        }
    }
    json.push_str("]}}");
    Ok(json)
}

/// `arg1 != 5`, `arg0 & 7 == 0`, `whole arg2 == 0`
fn condition(text: &str) -> Option<String> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let (kind, text) = match text.strip_prefix("whole ") {
        Some(text) => ("qword", text),
        None => ("dword", text),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let (argument, operator, value) = match *words {
        [argument, "==", value] => (argument, r#""eq""#.to_owned(), value),
        [argument, "!=", value] => (argument, r#""ne""#.to_owned(), value),
        [argument, "&", mask, "==", value] => (
            argument,
            format!(r#"{{"masked_eq":{}}}"#, number(mask)?),
            value,
        ),
        _ => return None,
    };
    let index: u8 = argument.strip_prefix("arg")?.parse().ok()?;
    let value = number(value)?;
    Some(format!(
        r#"{{"index":{index},"type":"{kind}","op":{operator},"val":{value}}}"#
    ))
}

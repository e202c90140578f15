//! How nginx and uWSGI read their configuration, after `ngx_conf_read_token` and `uwsgi_ini_config`: what tests and fuzz
//! targets ask whether a value was written as it should be.

/// The words of the first directive of `text` and what follows it; none if nginx would refuse the text.
pub fn nginx_words(text: &str) -> Option<(Vec<String>, &str)> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', '\r', '\n']);
    loop {
        let first = rest.chars().next()?;
        match first {
            ';' | '{' => return Some((words, &rest[1..])),
            '}' | '#' => return None,
            _ => {}
        }
        let quote = matches!(first, '"' | '\'').then_some(first);
        let body = if quote.is_some() { &rest[1..] } else { rest };
        let mut word = String::new();
        let mut characters = body.char_indices();
        let end = loop {
            let (at, c) = characters.next()?;
            match (c, quote) {
                ('\\', _) => match characters.next()?.1 {
                    c @ ('"' | '\'' | '\\') => word.push(c),
                    't' => word.push('\t'),
                    'r' => word.push('\r'),
                    'n' => word.push('\n'),
                    c => word.extend(['\\', c]),
                },
                (c, Some(quote)) if c == quote => break at + 1,
                (' ' | '\t' | '\r' | '\n' | ';' | '{', None) => break at,
                (c, _) => word.push(c),
            }
        };
        words.push(word);
        rest = &body[end..];
        // A closing quote must be followed by a blank, `;` or `{`.
        if quote.is_some() && !rest.starts_with([' ', '\t', '\r', '\n', ';', '{']) {
            return None;
        }
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }
}

/// The keys and values of an ini file's section `uwsgi`, after uWSGI's replacements; none if it would replace anything
/// but a doubled percent sign.
pub fn ini_pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut magic = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '%' => match characters.next() {
                Some('%') => magic.push('%'),
                _ => return None,
            },
            c => magic.push(c),
        }
    }
    let mut pairs = Vec::new();
    let mut section = String::new();
    for line in magic.split('\n') {
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name[..name.len() - 1].to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        if ["$(", "@(", "%("]
            .iter()
            .any(|opening| value.contains(opening))
        {
            return None;
        }
        if section == "uwsgi" {
            pairs.push((
                key.trim_matches([' ', '\t', '\r']).to_owned(),
                value.trim_matches([' ', '\t', '\r']).to_owned(),
            ));
        }
    }
    Some(pairs)
}

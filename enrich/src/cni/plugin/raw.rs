//! The bytes of one member of a JSON object, as they are.
//!
//! What the plugin hands back must be what it was handed, also where a parser would normalise (numbers, escapes, order)
//! or refuse (half of a surrogate pair). So this only finds where a member's value begins and ends.

/// The value of the first member `name` of the object, without the space around it. `None` if the text is no object, or
/// if it ends before the value does.
pub(super) fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut at = after_space(object, 0);
    if object.get(at) != Some(&b'{') {
        return None;
    }
    at = after_space(object, at + 1);
    while object.get(at) == Some(&b'"') {
        let end = after_string(object, at)?;
        let is_it = object.get(at + 1..end - 1) == Some(name.as_bytes());
        at = after_space(object, end);
        if object.get(at) != Some(&b':') {
            return None;
        }
        let begin = after_space(object, at + 1);
        let end = after_value(object, begin)?;
        if is_it {
            return object.get(begin..end);
        }
        at = after_space(object, end);
        if object.get(at) == Some(&b',') {
            at = after_space(object, at + 1);
        }
    }
    None
}

fn after_space(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(|byte| b" \t\r\n".contains(byte)) {
        at += 1;
    }
    at
}

/// The index after the string that begins at `at`.
fn after_string(text: &[u8], mut at: usize) -> Option<usize> {
    at += 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The index after the value that begins at `at`: brackets are counted, everything else ends where no scalar goes on.
fn after_value(text: &[u8], begin: usize) -> Option<usize> {
    let (mut at, mut depth) = (begin, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => at = after_string(text, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth > 0 => {
                at += 1;
                continue;
            }
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => return None,
            _ => {
                while text.get(at).is_some_and(|byte| !b" \t\r\n,:{}[]\"".contains(byte)) {
                    at += 1;
                }
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = member(text.as_bytes(), "a").map(|bytes| std::str::from_utf8(bytes).expect("text"));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_value_is_found_as_it_is() {
        check(r#"{"a":{"b":[1,2,{"c":"}"}]}}"#, Some(r#"{"b":[1,2,{"c":"}"}]}"#));
        check(r#" { "x" : "a" , "a" : 1e3 } "#, Some("1e3"));
        check(r#"{"x":{"a":1},"y":["a",{"a":2}],"a":null}"#, Some("null"));
        check(r#"{"\"a":1,"a":"\ud800 \u003c \" }"}"#, Some(r#""\ud800 \u003c \" }""#));
        check(r#"{"a": [ ] ,"b":2}"#, Some("[ ]"));
    }

    #[test]
    fn what_is_not_whole_is_not_found() {
        for text in ["", "[]", "{", r#"{"a""#, r#"{"a":"#, r#"{"a":{"b":1"#, r#"{"a":"x"#, r#"{"a":,}"#, r#"{"b":1}"#] {
            check(text, None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in r#"[{}\[\]":, a\\0-9]{0,60}"#) {
            let _ = member(text.as_bytes(), "a");
        }
    }
}

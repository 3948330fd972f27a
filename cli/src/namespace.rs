//! Names of namespaces, as arguments of every command.

/// A namespace as it was typed.
///
/// # Errors
/// When it cannot be the name of one.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = text.bytes().all(|byte| letter(byte) || byte == b'-');
    let ends = [text.bytes().next(), text.bytes().last()];
    if inner && ends.into_iter().all(|end| end.is_some_and(letter)) && text.len() <= 63 {
        return Ok(text.to_owned());
    }
    Err(
        "a namespace has up to 63 lower case letters, digits and dashes, and no dash at its ends"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_namespace_name_is_refused_before_any_query() {
        for good in ["shop", "a", "1-2", &"x".repeat(63)] {
            assert_eq!(namespace(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "a?b=c#",
            "../x",
            "a/b",
            "Shop",
            "-a",
            "a-",
            "a.b",
            "a b",
            &"x".repeat(64),
        ] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
    }
}

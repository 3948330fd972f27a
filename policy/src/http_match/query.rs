//! Parses the parameters of a URL's query, as forms of browsers write them.

use std::borrow::Cow;

/// The first value of a parameter, decoded. `None`: there is none, or it is no UTF-8.
pub(super) fn first<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let pairs = query.split('&');
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(key, _)| decoded(key).is_some_and(|key| key == name))?;
    decoded(value)
}

/// A plus is a space. What is no escape of two digits stays as it is.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, behind @ ..] = rest {
        let (byte, behind) = match (*byte, behind) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', behind),
            },
            (b'+', _) => (b' ', behind),
            (byte, _) => (byte, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn first_value_of_a_parameter_is_read_decoded() {
        let query = "a=1&b=x%20y+z&a=2&c&=e&%64=%C3%A4&p=100%&q=%zz%4";
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("x y z")),
            ("c", Some("")),
            ("", Some("e")),
            ("d", Some("ä")),
            ("p", Some("100%")),
            ("q", Some("%zz%4")),
            ("A", None),
            ("%64", None),
        ] {
            assert_eq!(first(query, name).as_deref(), value, "{name}");
        }
        assert_eq!(first("", "a"), None);
    }

    #[test]
    fn value_that_is_no_text_hides_later_ones() {
        assert_eq!(first("a=%ff&a=1", "a"), None);
        assert_eq!(first("%ff=1&a=2", "a").as_deref(), Some("2"));
    }
}

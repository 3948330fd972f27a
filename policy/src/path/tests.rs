//! Paths that mean the same, and those that are refused.

use proptest::prelude::*;

use super::BadPath::*;
use super::*;

#[test]
fn attack_paths_normalise_to_server_view_or_are_refused() {
    let table: &[(&str, Result<&str, BadPath>)] = &[
        // Dot segments behind an allowed prefix.
        ("/public/../private", Ok("/private")),
        ("/public/./../private", Ok("/private")),
        ("/public/%2e%2e/private", Ok("/private")),
        ("/public/%2E/%2E%2E/private", Ok("/private")),
        ("/public/.%2e/private", Ok("/private")),
        ("/public\\..\\private", Ok("/private")),
        ("/public/\\../private", Ok("/private")),
        ("\\public", Ok("/public")),
        ("/public//..//private", Ok("/private")),
        ("/public/..", Ok("/")),
        ("/public/..//", Ok("/")),
        ("/../../private", Ok("/private")),
        ("/public/../../../private", Ok("/private")),
        ("/public/..;/private", Err(DotParameter)),
        ("/public/..;a=b/private", Err(DotParameter)),
        ("/public/..%3b/private", Err(DotParameter)),
        ("/public/%2e%2e;/private", Err(DotParameter)),
        ("/public/.;/private", Err(DotParameter)),
        ("/public/..%2fprivate", Err(EscapedSlash)),
        ("/public/..%2Fprivate", Err(EscapedSlash)),
        ("/public/..%5cprivate", Err(EscapedBackslash)),
        ("/public%2f%2e%2e%2fprivate", Err(EscapedSlash)),
        // Decoded once, never twice.
        ("/%252e%252e/private", Ok("/%252e%252e/private")),
        (
            "/public/%252e%252e/private",
            Ok("/public/%252e%252e/private"),
        ),
        ("/%25c0%25ae", Ok("/%25c0%25ae")),
        ("/%25%32%65/x", Ok("/%252e/x")),
        // Literals, whatever they remind of.
        ("/0x2e0x2e/private", Ok("/0x2e0x2e/private")),
        ("/...", Ok("/...")),
        ("/...;/x", Ok("/...;/x")),
        ("/.hidden", Ok("/.hidden")),
        ("/..a/b", Ok("/..a/b")),
        ("/;/", Ok("/;/")),
        ("/admin;a=b", Ok("/admin;a=b")),
        ("/ADMIN", Ok("/ADMIN")),
        ("/private%20", Ok("/private%20")),
        ("/private%09", Ok("/private%09")),
        ("/private.", Ok("/private.")),
        ("/private/", Ok("/private/")),
        ("/private;x=1", Ok("/private;x=1")),
        ("//private", Ok("/private")),
        ("///", Ok("/")),
        ("/a%0ab", Ok("/a%0Ab")),
        ("/%e4%bd%a0", Ok("/%E4%BD%A0")),
        ("/你", Ok("/你")),
        ("/%41%7a%7E%5f", Ok("/Az~_")),
        // No part of a path, or without a harmless reading.
        ("/public#/../private", Err(BadCharacter)),
        ("/x?/public", Err(BadCharacter)),
        ("/a b", Err(BadCharacter)),
        ("/a\tb", Err(BadCharacter)),
        ("/a\0", Err(BadCharacter)),
        ("/a\x7f", Err(BadCharacter)),
        ("/public%23/../private", Ok("/private")),
        ("/public%23/x", Ok("/public%23/x")),
        ("/a%00", Err(EscapedNul)),
        ("/%", Err(BadEscape)),
        ("/%2", Err(BadEscape)),
        ("/%2g", Err(BadEscape)),
        ("/%+1", Err(BadEscape)),
        ("/%ä", Err(BadEscape)),
        ("/%u002e%u002e/private", Err(BadEscape)),
        ("/%%32%65", Err(BadEscape)),
        ("/%c0%ae%c0%ae/private", Err(Overlong)),
        ("/%c0%af", Err(Overlong)),
        ("/%e0%80%ae", Err(Overlong)),
        ("/%f0%80%80%ae", Err(Overlong)),
        ("/%C0", Ok("/%C0")),
        ("", Err(NotAbsolute)),
        ("test", Err(NotAbsolute)),
        ("http://evil/private", Err(NotAbsolute)),
        ("*", Ok("*")),
        ("**", Err(NotAbsolute)),
    ];
    for (raw, expected) in table {
        assert_eq!(
            normalise(raw).as_deref().map_err(|e| *e),
            *expected,
            "{raw:?}"
        );
    }
}

#[test]
fn an_ordinary_path_is_not_copied() {
    for path in ["/", "/api/v1.0/users", "/a/b/", "/a%20b", "/a.b/c..d", "*"] {
        assert!(matches!(normalise(path), Ok(Cow::Borrowed(_))), "{path:?}");
    }
}

#[test]
fn slashes_are_read_in_each_way_that_applications_know() {
    let table: &[(&str, &[&str])] = &[
        ("/a%2fb", &["/a%2Fb", "/a/b"]),
        ("/a//b", &["/a//b", "/a/b"]),
        ("//a/b", &["//a/b", "/a/b", "/b"]),
        ("/%2Fa", &["/%2Fa", "//a", "/a", "/"]),
        // Some skip every slash before a host, and some merge slashes behind it, or before the
        // path alone.
        ("///a/b", &["///a/b", "/a/b", "/b"]),
        ("//a//b", &["//a//b", "/a/b", "/a//b", "//b", "/b", "/"]),
        ("/a%41//%e4", &["/aA//%E4", "/aA/%E4"]),
        (
            "/a/%2Fb//c",
            &["/a/%2Fb//c", "/a/%2Fb/c", "/a//b//c", "/a//b/c", "/a/b/c"],
        ),
        ("/a/b", &[]),
        ("/%41", &[]),
        ("/a%252Fb", &[]),
        ("/a//../b", &[]),
        ("/a/./b%2Fc", &[]),
        ("/a%2F.", &[]),
        ("/a%2F..;b", &[]),
        ("/a\\b//c", &[]),
        ("//a%5C", &[]),
        ("*", &[]),
    ];
    for (path, readings) in table {
        assert_eq!(PathForms::of(path).readings(), *readings, "{path:?}");
    }
    let longest = format!("/{}%2F", "x".repeat(MAX_READ - 4));
    assert_eq!(PathForms::of(&longest).readings().len(), 2);
}

#[test]
fn readings_that_rules_cannot_see_are_not_one() {
    let x = "x".repeat(MAX_READ);
    let long = [format!("/{x}%2F"), format!("//{x}"), format!("/{x}//a")];
    let many = ["/%2Fa//b".to_owned(), "//a//b//c%2F".to_owned()];
    for path in long.into_iter().chain(many) {
        let forms = PathForms::of(&path);
        assert_eq!(forms.ways(), PathReadings::Unknown, "{path}");
        assert!(forms.may_stay() && forms.readings().is_empty(), "{path}");
    }
    for path in [format!("/{x}"), format!("/%41{x}")] {
        assert_eq!(PathForms::of(&path).ways(), PathReadings::One, "{path}");
    }
}

/// Encodings of one path: every character may stand for itself or be escaped.
fn disguised(path: &'static str) -> impl Strategy<Value = String> {
    proptest::collection::vec(0u8..3, path.len()).prop_map(move |variants| {
        path.bytes()
            .zip(variants)
            .map(|(byte, variant)| match variant {
                0 => char::from(byte).to_string(),
                1 => format!("%{byte:02x}"),
                _ => format!("%{byte:02X}"),
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn normalised_path_is_stable_without_dot_segments(
        path in "[/\\\\]([/\\\\.;%a]|%2[eEfF5]|%5[cC]|%3[bB]|%c0|%ae|\\.\\.|é){0,24}"
    ) {
        if let Ok(once) = normalise(&path) {
            let twice = normalise(&once);
            prop_assert_eq!(twice.as_deref(), Ok(&*once), "from {:?}", path);
            prop_assert!(once.starts_with('/'));
            prop_assert!(!once.contains("//") && !once.contains('\\'));
            let lower = once.to_ascii_lowercase();
            prop_assert!(lower.split('/').all(|s| s != "." && s != ".."), "{:?} of {:?}", once, path);
            for escape in ["%2e", "%2f", "%5c", "%00"] {
                prop_assert!(!lower.contains(escape), "{:?} of {:?}", once, path);
            }
        }
    }

    #[test]
    fn what_an_application_reads_is_among_the_readings(
        path in "/(/|//|%2F|%2f|[ab]|%25|%41){0,12}"
    ) {
        let merged = |path: &str| {
            let mut path = path.to_owned();
            while path.contains("//") {
                path = path.replace("//", "/");
            }
            path
        };
        let first_merged = |path: &str| format!("/{}", path.trim_start_matches('/'));
        // As browsers and Node.js read it.
        let behind_host = |path: &str| {
            let address = path.trim_start_matches('/');
            let behind = address.find('/').map_or("/", |at| &address[at..]);
            if path.starts_with("//") { behind.to_owned() } else { path.to_owned() }
        };
        let kept = path.replace("%2f", "%2F").replace("%41", "A");
        let decoded = |path: &str| path.replace("%2F", "/");
        let read = [
            merged(&kept),
            decoded(&kept),
            decoded(&merged(&kept)),
            merged(&decoded(&kept)),
            first_merged(&kept),
            first_merged(&decoded(&kept)),
            behind_host(&kept),
            merged(&behind_host(&kept)),
            decoded(&behind_host(&kept)),
            merged(&decoded(&behind_host(&kept))),
            kept.clone(),
        ];
        let forms = PathForms::of(&path);
        let readings = forms.readings();
        prop_assert!(readings.len() <= MOST_READINGS);
        let is_unknown = forms.ways() == PathReadings::Unknown;
        for one in read.iter().filter(|_| !is_unknown) {
            let is_only = readings.is_empty() && *one == kept;
            prop_assert!(is_only || readings.contains(one), "{:?} of {:?}", one, path);
        }
    }

    #[test]
    fn any_text_has_an_answer(path in "\\PC{0,40}") {
        if let Ok(once) = normalise(&path) {
            let twice = normalise(&once);
            prop_assert_eq!(twice.as_deref(), Ok(&*once));
        }
    }

    #[test]
    fn a_disguised_path_is_recognised_or_refused(path in disguised("/public/../private/x")) {
        match normalise(&path) {
            Ok(form) => prop_assert_eq!(form, "/private/x"),
            Err(why) => prop_assert!(matches!(why, EscapedSlash | NotAbsolute), "{:?}: {}", path, why),
        }
    }
}

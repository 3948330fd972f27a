//! A promise, and whether it is kept.

/// One promise and how it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    pub what: &'static str,
    pub seen: String,
    pub kept: bool,
}

/// Rounded down, so that 100 % means all.
pub fn percent(part: f64, all: f64) -> String {
    if all <= 0.0 {
        return "- %".into();
    }
    let tenths = (part * 1000.0 / all).floor() / 10.0;
    if part == all {
        "100 %".into()
    } else {
        format!("{tenths:.1} %")
    }
}

//! Times and spans in tables.

/// Whole seconds, UTC.
pub(super) fn time(ns: i64) -> String {
    jiff::Timestamp::from_second(ns.div_euclid(1_000_000_000))
        .map_or_else(|_| ns.to_string(), |time| time.to_string())
}

/// RFC 3339 with nanoseconds.
pub(super) fn precise(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .map_or_else(|_| ns.to_string(), |time| format!("{time:.9}"))
}

/// `90s`, `5m`, `3h`, `2d`: what is enough to see how old something is.
pub(super) fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..120 => format!("{whole}s"),
        120..7_200 => format!("{}m", whole / 60),
        7_200..172_800 => format!("{}h", whole / 3_600),
        _ => format!("{}d", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn spans_are_short() {
        let spans = [0.4, 119.0, 120.0, 7_200.0, 200_000.0].map(super::seconds);
        assert_eq!(spans, ["0s", "119s", "2m", "2h", "2d"]);
        assert_eq!(super::time(1_767_225_600_500_000_000), "2026-01-01T00:00:00Z");
    }
}

//! Numbers of bytes as people write them.

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `8GiB`, `512MiB`, `2GB` or `1000000`.
pub fn parse(text: &str) -> Result<u64, String> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| {
            let at = text.len().checked_sub(suffix.len())?;
            let (number, end) = text.split_at_checked(at)?;
            end.eq_ignore_ascii_case(suffix).then_some((number, *unit))
        })
        .unwrap_or((text, 1));
    number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "must be a number of bytes such as 8GiB, 512MiB, 2GB or 1000000".into())
}

/// Writes bytes with the largest unit that leaves a whole part.
pub fn show(bytes: u64) -> String {
    match UNITS[..4].iter().rev().find(|(_, unit)| bytes >= *unit) {
        Some((suffix, unit)) => format!("{:.1} {suffix}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse("8GiB"), Ok(8 << 30));
        assert_eq!(parse("2 gb"), Ok(2_000_000_000));
        assert_eq!(parse("4096"), Ok(4096));
        for wrong in ["", "GiB", "-1", "1.5GiB", "8 apples", "99999999999TiB", "8é"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(show(1023), "1023 bytes");
        assert_eq!(show(3 << 29), "1.5 GiB");
    }
}

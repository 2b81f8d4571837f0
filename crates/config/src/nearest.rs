//! The name that was probably meant.

/// The name most like `given`, if any is like it.
pub fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a long text for a field, and the distance costs the product of both lengths.
    let given: Vec<char> = given.to_lowercase().chars().take(64).collect();
    names
        .map(|name| (distance(&given, name), name))
        .filter(|(distance, name)| *distance <= (given.len().min(name.len()) / 2).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein's distance: insertions, deletions and substitutions.
fn distance(given: &[char], name: &str) -> usize {
    let name: Vec<char> = name.chars().collect();
    let mut previous: Vec<usize> = (0..=name.len()).collect();
    for (row, &a) in given.iter().enumerate() {
        let mut current = vec![row + 1];
        let mut left = row + 1;
        for (&b, pair) in name.iter().zip(previous.windows(2)) {
            let &[diagonal, above] = pair else { continue };
            left = (diagonal + usize::from(a != b)).min(above + 1).min(left + 1);
            current.push(left);
        }
        previous = current;
    }
    previous.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let distance = |a: &str, b: &str| super::distance(&a.chars().collect::<Vec<_>>(), b);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!(distance("abc", ""), 3);
    }

    #[test]
    fn nearest_names() {
        let names = || ["temperature", "top_p", "top_k", "max_tokens"].into_iter();
        assert_eq!(nearest("temprature", names()), Some("temperature"));
        assert_eq!(nearest("maxTokens", names()), Some("max_tokens"));
        assert_eq!(nearest("quite_something_else", names()), None);
    }
}

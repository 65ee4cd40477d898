//! "Did you mean": the nearest known name to one that is not known.

/// The candidate nearest to `name`, if it is near enough to be a slip of the keyboard.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(name.len()) / 4)
        .min_by_key(|(distance, candidate)| (*distance, *candidate))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_slips_and_rejects_strangers() {
        assert_eq!(nearest("fromat", ["format", "path"]), Some("format"));
        assert_eq!(nearest("bidz", ["bids", "asks"]), Some("bids"));
        assert_eq!(nearest("velocity", ["format", "path"]), None);
    }
}

//! The known word that a mistyped one was probably meant to be.
//!
//! Data flow: wrong word + candidates -> nearest candidate by edit distance.
//!
//! Not here: the wording of the complaint.

/// The nearest candidate, if its distance is at most half the word's length, as in fio.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let length = word.chars().count();
    // Distances to an arbitrarily long word cost time and can match nothing.
    if length > 64 {
        return None;
    }
    candidates
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= length.div_ceil(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, one row of the matrix at a time.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }

    #[test]
    fn far_word_has_no_suggestion() {
        let known = ["iodepth", "numjobs"];
        assert_eq!(nearest("iodepht", known.into_iter()), Some("iodepth"));
        assert_eq!(nearest("zzzzzz", known.into_iter()), None);
    }
}

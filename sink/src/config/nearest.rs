//! The valid key that looks most like a mistyped one.

/// The candidate with the smallest edit distance to `word`; ties go to the first.
pub(super) fn nearest(word: &str, candidates: impl Iterator<Item = &'static str>) -> &'static str {
    candidates.min_by_key(|candidate| distance(word, candidate)).unwrap_or("flush.size")
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().take(200).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

//! The nearest of a set of names, for "did you mean".

/// The name in `names` with the fewest edits to `wanted`, unless all are far off.
pub(crate) fn nearest<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance_max = (wanted.len() / 2).max(2);
    names
        .into_iter()
        .map(|name| (distance(wanted, name), name))
        .min()
        .filter(|(distance, _)| *distance <= distance_max)
        .map(|(_, name)| name)
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let change = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_key_and_noise_finds_none() {
        let keys = ["upload.size.max", "upload.age.max", "memory.max"];
        assert_eq!(nearest("upload.sise.max", keys), Some("upload.size.max"));
        assert_eq!(nearest("memory-max", keys), Some("memory.max"));
        assert_eq!(nearest("zzzzzzzz", keys), None);
    }
}

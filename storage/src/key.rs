//! Names of objects in the store, below `<prefix>/<cluster id>`.

use common::{ObjectId, crc32c};
use object_store::path::Path;

/// Where the engine object `id` lies: `<prefix>/data/<two hex digits>/<id in 16 hex digits>`. The digits are the lowest
/// byte of the CRC-32C over the id's little-endian bytes and spread the keys over a store that throttles by prefix.
#[must_use]
pub fn data_key(prefix: &Path, id: ObjectId) -> Path {
    let spread = crc32c(&id.0.to_le_bytes()) & 0xff;
    prefix.clone().join("data").join(format!("{spread:02x}")).join(format!("{:016x}", id.0))
}

/// Where the claim of cluster incarnation `number` lies: `<prefix>/cluster/incarnation-<number, five digits>`.
#[must_use]
pub fn incarnation_key(prefix: &Path, number: u16) -> Path {
    prefix.clone().join("cluster").join(format!("incarnation-{number:05}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fixed_because_objects_outlive_builds() {
        let prefix = Path::from("p/cluster-id");
        assert_eq!(
            data_key(&prefix, ObjectId((1 << 48) | 0x2a)).to_string(),
            "p/cluster-id/data/f0/000100000000002a"
        );
        assert_eq!(
            incarnation_key(&prefix, 7).to_string(),
            "p/cluster-id/cluster/incarnation-00007"
        );
    }
}

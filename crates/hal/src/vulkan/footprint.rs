//! Which bytes a command buffer reads and writes.

use crate::cpu::Extent;

/// Bytes by address, as sorted extents that neither overlap nor touch.
#[derive(Debug, Default)]
pub(crate) struct Footprint {
    read: Vec<Extent>,
    written: Vec<Extent>,
}

impl Footprint {
    pub(crate) fn new(read: Vec<Extent>, written: Vec<Extent>) -> Self {
        Self { read: merged(read), written: merged(written) }
    }

    /// Whether it uses these bytes in a way that does not go together with an access of the host.
    pub(crate) fn conflicts_with(&self, bytes: Extent, writes: bool) -> bool {
        overlaps(&self.written, bytes) || (writes && overlaps(&self.read, bytes))
    }
}

fn overlaps(sorted: &[Extent], bytes: Extent) -> bool {
    let first = sorted.partition_point(|e| e.end <= bytes.start);
    sorted.get(first).is_some_and(|e| e.overlaps(bytes))
}

fn merged(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.retain(|e| e.start < e.end);
    extents.sort_unstable_by_key(|e| e.start);
    extents.dedup_by(|next, before| {
        let touches = next.start <= before.end;
        if touches {
            before.end = before.end.max(next.end);
        }
        touches
    });
    extents.shrink_to_fit();
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footprint_knows_its_bytes() {
        let e = |start, size| Extent::new(start, size);
        let print = Footprint::new(vec![e(10, 5), e(40, 0), e(12, 8)], vec![e(30, 2), e(32, 4), e(90, 1)]);
        assert_eq!(
            (print.read.as_slice(), print.written.as_slice()),
            (&[e(10, 10)][..], &[e(30, 6), e(90, 1)][..])
        );
        for (bytes, reads, writes) in [
            (e(19, 1), false, true),
            (e(20, 10), false, false),
            (e(20, 11), true, true),
            (e(35, 1), true, true),
            (e(36, 54), false, false),
            (e(90, 1), true, true),
            (e(91, 9), false, false),
            (e(12, 0), false, false),
        ] {
            assert_eq!(print.conflicts_with(bytes, false), reads, "{bytes:?}");
            assert_eq!(print.conflicts_with(bytes, true), writes, "{bytes:?}");
        }
    }
}

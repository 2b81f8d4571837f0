//! Whole safetensors files: what is accepted lies within the file and has the bytes that type and shape ask for.
#![no_main]

use bessemer_weights::parse_safetensors_header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = parse_safetensors_header("fuzz.safetensors", bytes) else { return };
    for (name, entry) in &header.tensors {
        let stored = bytes.get(entry.range.clone()).unwrap_or_else(|| panic!("{name} lies outside the file"));
        let elements =
            entry.info.shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        let bits = elements.and_then(|elements| elements.checked_mul(entry.info.dtype.bits()));
        assert_eq!(bits, Some(stored.len() * 8), "{name} has other bytes than its shape");
    }
});

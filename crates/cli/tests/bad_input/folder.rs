//! A model folder that is sound until a case spoils it.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A copy of a small model, as `./model` in a folder of its own.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// An unquantised Llama of two layers.
    pub fn plain() -> Self {
        Self::copy("models/llama")
    }

    /// Another one, 4 bits in groups of 32.
    pub fn quantised() -> Self {
        Self::copy("quantised/llama_4bit_g32")
    }

    fn copy(name: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        std::fs::create_dir(folder.model()).expect("a new folder");
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name).join("model");
        for entry in std::fs::read_dir(&source).expect("the golden model is there") {
            let path = entry.expect("its files can be listed").path();
            let to = folder.model().join(path.file_name().expect("a file has a name"));
            std::fs::copy(&path, to).expect("its files can be copied");
        }
        folder
    }

    /// The working directory of the program.
    pub fn root(&self) -> &Path {
        self.0.path()
    }

    fn model(&self) -> PathBuf {
        self.root().join("model")
    }

    /// Replaces a file of the model.
    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.model().join(file), bytes).expect("a file can be written");
    }

    /// Removes a file of the model.
    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.model().join(file)).expect("the file was there");
    }

    /// Reads a file of the model.
    pub fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.model().join(file)).expect("the file is there")
    }

    /// Sets a key of config.json; `null` removes it.
    pub fn configure(&self, key: &str, value: Value) {
        let mut config: Value =
            serde_json::from_slice(&self.read("config.json")).expect("config.json is JSON");
        let map = config.as_object_mut().expect("config.json is an object");
        match value {
            Value::Null => drop(map.remove(key)),
            value => drop(map.insert(key.to_owned(), value)),
        }
        self.write("config.json", config.to_string());
    }

    /// Replaces a text of the same length in model.safetensors.
    pub fn patch_weights(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len(), "offsets must stay as they are");
        let mut bytes = self.read("model.safetensors");
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes());
        let at = at.unwrap_or_else(|| panic!("{from:?} is not in the header"));
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        self.write("model.safetensors", bytes);
    }
}

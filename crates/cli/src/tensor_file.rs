//! Writes safetensors files tensor by tensor, so that a checkpoint larger than memory can be written.
//!
//! Types and shapes are known before the first byte, so the header comes first and the tensors follow in its order. The
//! file takes its name only when it is whole: one that was broken off is never found under it.
//!
//! Format: <https://huggingface.co/docs/safetensors/index#format>.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bessemer_weights::DType;
use serde_json::{Map, Value, json};

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bits() / 8
    }
}

/// A safetensors file in the making.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    missing: VecDeque<Entry>,
}

impl TensorFile {
    /// Creates the file and writes its header.
    pub fn create(path: &Path, entries: Vec<Entry>) -> anyhow::Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file =
            File::create(&partial).with_context(|| format!("{}: cannot create it", partial.display()))?;
        let mut this =
            Self { path: path.to_owned(), partial, file: BufWriter::new(file), missing: entries.into() };
        let header = header(&this.missing)?;
        this.append(&(header.len() as u64).to_le_bytes())?;
        this.append(&header)?;
        Ok(this)
    }

    /// Writes the next tensor's bytes; `name` must be the next of the entries.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        match self.missing.pop_front() {
            Some(next) if next.name == name && next.bytes() == bytes.len() => self.append(bytes),
            Some(next) => bail!(
                "{}: expected tensor {} of {} bytes, but {name} of {} bytes came",
                self.path.display(),
                next.name,
                next.bytes(),
                bytes.len()
            ),
            None => bail!("{}: tensor {name} came after the last one", self.path.display()),
        }
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> anyhow::Result<()> {
        if let Some(next) = self.missing.front() {
            bail!("{}: tensor {} was not written", self.path.display(), next.name);
        }
        self.file.flush().with_context(|| format!("{}: cannot write it", self.partial.display()))?;
        std::fs::rename(&self.partial, &self.path)
            .with_context(|| format!("{}: cannot give the file its name", self.path.display()))
    }

    fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).with_context(|| format!("{}: cannot write it", self.partial.display()))
    }
}

impl Drop for TensorFile {
    fn drop(&mut self) {
        // Gone already where the file is whole.
        let _ = std::fs::remove_file(&self.partial);
    }
}

fn header(entries: &VecDeque<Entry>) -> anyhow::Result<Vec<u8>> {
    let mut header = Map::new();
    let mut begin = 0;
    for entry in entries {
        let end = begin + entry.bytes();
        let value = json!({"dtype": entry.dtype.name(), "shape": entry.shape, "data_offsets": [begin, end]});
        if header.insert(entry.name.clone(), value).is_some() {
            bail!("tensor {}: names must differ, but this one is there twice", entry.name);
        }
        begin = end;
    }
    let mut header = serde_json::to_vec(&Value::Object(header))?;
    // Readers map the file: the tensors begin on a multiple of 8.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, shape: &[usize]) -> Entry {
        Entry { name: name.into(), dtype: DType::F32, shape: shape.to_vec() }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut file = TensorFile::create(&path, vec![entry("z", &[2]), entry("a", &[1, 1])]).unwrap();
        file.write("z", bytemuck::cast_slice(&[1.0_f32, 2.0])).unwrap();
        assert!(!path.exists());
        file.write("a", bytemuck::cast_slice(&[3.0_f32])).unwrap();
        file.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("z").unwrap().data(), bytemuck::cast_slice::<f32, u8>(&[1.0, 2.0]));
        assert_eq!(read.tensor("a").unwrap().shape(), [1, 1]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut file = TensorFile::create(&path, vec![entry("z", &[2])]).unwrap();
        assert!(file.write("z", &[0; 4]).is_err());
        drop(file);
        let file = TensorFile::create(&path, vec![entry("z", &[2])]).unwrap();
        assert!(file.finish().is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(TensorFile::create(&path, vec![entry("z", &[2]), entry("z", &[2])]).is_err());
    }
}

//! Compiles every GPU kernel of this crate. Which there are is said beside them, in each operation's `shaders.rs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use bessemer_wgsl::{Compiled, Languages, compile};

#[path = "src/manifest.rs"]
mod manifest;

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let apple = env::var("CARGO_CFG_TARGET_VENDOR").is_ok_and(|vendor| vendor == "apple");
    println!("cargo::rerun-if-changed=src");

    let mut table = String::from("static SHADERS: &[bessemer_hal::Shader] = &[\n");
    for source in manifest::sources() {
        let wanted = if apple { Languages::Msl } else { Languages::Spirv };
        if source.languages != Languages::All && source.languages != wanted {
            continue;
        }
        let text = source.text(&root.join("src")).unwrap_or_else(|error| panic!("{}: {error}", source.name));
        // Checked in both languages on every machine, so that a kernel that only Metal refuses does not build here.
        let compiled =
            compile(&source.name, &text, source.languages).unwrap_or_else(|error| panic!("{error}"));
        write_out(&out, &source.name, &compiled, apple);
        describe(&mut table, &source, &compiled, apple);
    }
    table.push_str("];\n");
    fs::write(out.join("shaders.rs"), table).expect("the output folder can be written");
}

fn write_out(out: &Path, name: &str, compiled: &Compiled, apple: bool) {
    let (file, bytes) = match apple {
        true => (format!("{name}.metal"), compiled.msl.as_bytes().to_vec()),
        false => (format!("{name}.spv"), compiled.spirv.iter().flat_map(|word| word.to_le_bytes()).collect()),
    };
    fs::write(out.join(file), bytes).expect("the output folder can be written");
}

fn describe(table: &mut String, source: &manifest::Source, compiled: &Compiled, apple: bool) {
    let name = &source.name;
    let include =
        |what: &str, extension: &str| format!("{what}!(concat!(env!(\"OUT_DIR\"), \"/{name}.{extension}\"))");
    let (spirv, msl) = match apple {
        true => ("&[]".to_owned(), include("include_str", "metal")),
        false => (include("include_bytes", "spv"), "\"\"".to_owned()),
    };
    let Compiled { msl_entry, workgroup, bindings, written, params, threadgroup, cooperative_matrix, .. } =
        compiled;
    let subgroup_size = source.subgroup_size;
    writeln!(
        table,
        "    bessemer_hal::Shader {{ name: {name:?}, spirv: {spirv}, msl: {msl}, msl_entry: {msl_entry:?}, \
         workgroup: {workgroup:?}, bindings: {bindings}, written: {written}, params: {params}, \
         threadgroup: &{threadgroup:?}, requires: bessemer_hal::Requires {{ \
         cooperative_matrix: {cooperative_matrix}, subgroup_size: {subgroup_size:?} }} }},"
    )
    .expect("a String takes everything");
}

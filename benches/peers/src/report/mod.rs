//! Charts and texts of what was measured.

pub mod chart;
pub mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Failure;

/// The directory of the crate that is measured.
pub fn root() -> Result<PathBuf, Failure> {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(bench.ancestors().nth(2).ok_or("no root")?.to_owned())
}

/// Puts a text between the lines `<!-- name -->` and `<!-- /name -->` of a file, in place of what is there.
pub fn put(file: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let all = fs::read_to_string(file)?;
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let missing = || format!("{} has no block {name}", file.display());
    let (before, rest) = all.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    fs::write(
        file,
        format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()),
    )?;
    Ok(())
}

/// A file as the destination of a Markdown image, for pages that have no files beside them.
pub fn data_uri(svg: &str) -> String {
    let mut uri = String::from("data:image/svg+xml,");
    for byte in svg.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/=:,".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri += &format!("%{byte:02X}");
        }
    }
    uri
}

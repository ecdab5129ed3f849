//! Renders charts and tables from the measurements.

pub mod chart;
pub mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Failure;

/// The root directory of the measured crate.
pub fn root() -> Result<PathBuf, Failure> {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(bench.ancestors().nth(2).ok_or("no root")?.to_owned())
}

/// Replaces the text between the lines `<!-- name -->` and `<!-- /name -->` of a file.
///
/// # Errors
///
/// If the file has no such lines.
pub fn put(file: &Path, name: &str, text: &str) -> Result<(), Failure> {
    match put_if_marked(file, name, text)? {
        true => Ok(()),
        false => Err(format!(
            "{} has no block {name}: add the lines `<!-- {name} -->` and `<!-- /{name} -->`",
            file.display()
        )
        .into()),
    }
}

/// As [`put`], but leaves a file without such lines as it is. Returns whether the file has them.
pub fn put_if_marked(file: &Path, name: &str, text: &str) -> Result<bool, Failure> {
    let all = fs::read_to_string(file)?;
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let Some((before, rest)) = all.split_once(&begin) else {
        return Ok(false);
    };
    let Some((_, after)) = rest.split_once(&end) else {
        return Ok(false);
    };
    fs::write(
        file,
        format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()),
    )?;
    Ok(true)
}

/// Encodes a chart as the destination of a Markdown image, for rustdoc, which does not copy files.
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

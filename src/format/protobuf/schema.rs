//! From a registry's text to the message that a frame names.

use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::prost_reflect::MessageDescriptor;

/// The name under which the schema itself is compiled.
const ROOT: &str = "schema.proto";
/// So deep may the message lie within others.
const MAX_INDEXES: usize = 16;

/// The schema and what it imports, by name.
struct Sources {
    text: String,
    imports: Vec<(String, String)>,
}

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == ROOT {
            return File::from_source(name, &self.text);
        }
        match self.imports.iter().find(|(import, _)| import == name) {
            Some((_, text)) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The message at `indexes` (which of the file's messages, which within that, and so on).
pub(super) fn message(text: &str, imports: &[(String, String)], indexes: &[usize]) -> Result<MessageDescriptor, String> {
    let mut files = ChainFileResolver::new();
    files.add(Sources { text: text.to_owned(), imports: imports.to_vec() });
    files.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.open_file(ROOT).map_err(|e| format!("it does not compile: {e}"))?;
    let pool = compiler.descriptor_pool();
    let file = pool.get_file_by_name(ROOT).ok_or("it does not compile")?;
    let no_such = || "it has no message at the place that the frame names".to_owned();
    let (first, rest) = indexes.split_first().ok_or_else(no_such)?;
    let mut found = file.messages().nth(*first).ok_or_else(no_such)?;
    for index in rest {
        let inner = found.child_messages().nth(*index).ok_or_else(no_such)?;
        found = inner;
    }
    Ok(found)
}

/// How many bytes of a frame's rest name the message; `None` where they are broken.
pub(in crate::format) fn frame_len(rest: &[u8]) -> Option<usize> {
    let mut pos = 0;
    read_indexes(rest, &mut pos)?;
    Some(pos)
}

/// Which message the bytes name: a count and as many places, each a number with its sign in the lowest bit. A count of zero
/// stands for the first message.
pub(super) fn read_indexes(bytes: &[u8], pos: &mut usize) -> Option<Vec<usize>> {
    let mut next = || {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = *bytes.get(*pos)?;
            *pos += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // An index below zero is none.
                return if value & 1 == 0 { usize::try_from(value >> 1).ok() } else { None };
            }
            shift += 7;
            if shift > 28 {
                return None;
            }
        }
    };
    match next()? {
        0 => Some(vec![0]),
        count if count <= MAX_INDEXES => (0..count).map(|_| next()).collect(),
        _ => None,
    }
}

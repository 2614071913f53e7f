//! From a registry's text to the message that a frame names: [`Compiled`].
//!
//! Always: what a stranger has written as an option of a schema is not looked into. Nothing that is read depends on it, and
//! the texts of options may nest without end, which the rest of a schema may not.

use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, UninterpretedOption,
};
use protox::prost_reflect::{FileDescriptor, MessageDescriptor};

/// The name under which the schema itself is compiled.
const ROOT: &str = "schema.proto";
/// So deep may the message lie within others.
const MAX_INDEXES: usize = 16;

/// A schema, compiled with what it imports. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::format) struct Compiled(FileDescriptor);

/// The schema and what it imports, by name.
struct Sources {
    text: String,
    imports: Vec<(String, String)>,
}

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == ROOT {
            return file(name, &self.text);
        }
        match self.imports.iter().find(|(import, _)| import == name) {
            Some((_, text)) => file(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// A file without its services, its extensions and the options that these are for.
fn file(name: &str, text: &str) -> Result<File, protox::Error> {
    let mut file: FileDescriptorProto = File::from_source(name, text)?.file_descriptor_proto().clone();
    file.service.clear();
    file.extension.clear();
    file.source_code_info = None;
    if let Some(options) = &mut file.options {
        plain(&mut options.uninterpreted_option);
    }
    file.message_type.iter_mut().for_each(message_options);
    file.enum_type.iter_mut().for_each(enum_options);
    Ok(File::from_file_descriptor_proto(file))
}

/// A message within a message comes back here; the parser has bounded how deep.
fn message_options(message: &mut DescriptorProto) {
    message.extension.clear();
    if let Some(options) = &mut message.options {
        plain(&mut options.uninterpreted_option);
    }
    for options in message.oneof_decl.iter_mut().filter_map(|one| one.options.as_mut()) {
        plain(&mut options.uninterpreted_option);
    }
    for options in message.extension_range.iter_mut().filter_map(|range| range.options.as_mut()) {
        plain(&mut options.uninterpreted_option);
    }
    message.field.iter_mut().for_each(field_options);
    message.enum_type.iter_mut().for_each(enum_options);
    message.nested_type.iter_mut().for_each(message_options);
}

fn field_options(field: &mut FieldDescriptorProto) {
    if let Some(options) = &mut field.options {
        plain(&mut options.uninterpreted_option);
    }
}

fn enum_options(of: &mut EnumDescriptorProto) {
    if let Some(options) = &mut of.options {
        plain(&mut options.uninterpreted_option);
    }
    for options in of.value.iter_mut().filter_map(|value| value.options.as_mut()) {
        plain(&mut options.uninterpreted_option);
    }
}

/// Leaves the options that Protobuf itself knows and that are one word: `packed`, `allow_alias` and such.
fn plain(options: &mut Vec<UninterpretedOption>) {
    options.retain(|option| option.aggregate_value.is_none() && option.name.iter().all(|part| !part.is_extension));
}

impl Compiled {
    /// Compiles a schema's text.
    pub(in crate::format) fn new(text: &str, imports: &[(String, String)]) -> Result<Self, String> {
        let mut files = ChainFileResolver::new();
        files.add(Sources { text: text.to_owned(), imports: imports.to_vec() });
        files.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(files);
        compiler.open_file(ROOT).map_err(|e| format!("it does not compile: {e}"))?;
        let file = compiler.descriptor_pool().get_file_by_name(ROOT);
        file.map(Self).ok_or_else(|| "it does not compile".to_owned())
    }

    /// The message at `indexes`: which of the file's messages, which within that, and so on.
    pub(super) fn message(&self, indexes: &[usize]) -> Result<MessageDescriptor, String> {
        const NO_SUCH: &str = "it has no message at the place that the frame names";
        const UNSURE: &str = "behind a map serializers count messages differently, and the frame could name either of two";
        let (first, rest) = indexes.split_first().ok_or(NO_SUCH)?;
        let mut found = self.0.messages().nth(*first).ok_or(NO_SUCH)?;
        for index in rest {
            // Some count the messages that maps stand for (Python's, Go's), some do not (Java's).
            let plain = found.child_messages().filter(|inner| !inner.is_map_entry()).nth(*index);
            let any = found.child_messages().nth(*index).filter(|inner| !inner.is_map_entry());
            let inner = match (plain, any) {
                (Some(plain), Some(any)) if plain != any => return Err(UNSURE.to_owned()),
                (Some(only), _) | (None, Some(only)) => only,
                (None, None) => return Err(NO_SUCH.to_owned()),
            };
            found = inner;
        }
        Ok(found)
    }
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

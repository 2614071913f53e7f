//! The language of the table: how a message is described, and what the description gives.
//!
//! ```text
//! messages! {
//!     /// A sentence about the message.
//!     Name {
//!         field: Type [3..],                      // present from version 3
//!         field: Type [0..=2],                    // present in versions 0 to 2
//!         field: Option<Type> [0..] null [4..],   // always present, may be null from version 4
//!         field: i32 [1..] = -1,                  // what it is in versions that do not carry it (else the type's default)
//!         @0 field: Type [12..],                  // a tagged field: tag 0, from version 12, written only when it is not the default
//!     }
//! }
//! ```
//!
//! Each becomes a plain struct with public fields, a `Default` of the declared defaults, and the code
//! that reads and writes it. `apis!` then lists which message answers which, and in which versions.

macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        $name:ident {
            $(
                $(#[$field_doc:meta])*
                $field:ident : $ty:ty [$($present:tt)+] $(null [$($null:tt)+])? $(= $default:expr)?,
            )*
            $( @ $tag:literal $tagged:ident : $tagged_ty:ty [$($tagged_present:tt)+] $(null [$($tagged_null:tt)+])? $(= $tagged_default:expr)?, )*
        }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $(
                #[doc = concat!("Kafka's `", stringify!($field), "`, carried by versions `", stringify!($($present)+), "`.")]
                $(
                    #[doc = ""]
                    #[$field_doc]
                )*
                pub $field: $ty,
            )*
            $(
                #[doc = concat!("Kafka's `", stringify!($tagged), "`, tag ", stringify!($tag), " of versions `", stringify!($($tagged_present)+), "`.")]
                pub $tagged: $tagged_ty,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: messages!(@default $($default)?), )*
                    $( $tagged: messages!(@default $($tagged_default)?), )*
                }
            }
        }

        impl $crate::wire::value::Wire for $name {
            #[allow(unused_mut, reason = "a message may have no field")]
            fn least(shape: $crate::wire::read::Shape) -> usize {
                let mut least = usize::from(shape.flexible);
                $(
                    if ($($present)+).contains(&shape.version) {
                        least += <$ty as $crate::wire::value::Wire>::least(shape);
                    }
                )*
                least
            }

            #[allow(unused_mut, unused_variables, reason = "a message may have no field, and no tagged ones")]
            fn read(from: &mut $crate::wire::read::Reader, _: bool) -> Result<Self, $crate::wire::WireError> {
                let mut value = Self::default();
                let version = from.shape.version;
                $(
                    if ($($present)+).contains(&version) {
                        value.$field = <$ty as $crate::wire::value::Wire>::read(from, messages!(@null version $($($null)+)?))
                            .map_err(|e| e.at(concat!(stringify!($name), ".", stringify!($field))))?;
                    }
                )*
                if from.shape.flexible {
                    from.tags(|tag, from| match tag {
                        $(
                            $tag if ($($tagged_present)+).contains(&version) => {
                                value.$tagged =
                                    <$tagged_ty as $crate::wire::value::Wire>::read(from, messages!(@null version $($($tagged_null)+)?))
                                        .map_err(|e| e.at(concat!(stringify!($name), ".", stringify!($tagged))))?;
                                Ok(true)
                            }
                        )*
                        _ => Ok(false),
                    })?;
                }
                Ok(value)
            }

            #[allow(unused_mut, unused_variables, reason = "a message may have no field, and no tagged ones")]
            fn write(&self, to: &mut $crate::wire::write::Writer, _: bool) {
                let version = to.shape.version;
                $(
                    if ($($present)+).contains(&version) {
                        $crate::wire::value::Wire::write(&self.$field, to, messages!(@null version $($($null)+)?));
                    }
                )*
                if to.shape.flexible {
                    let mut count = 0;
                    $(
                        let plain: $tagged_ty = messages!(@default $($tagged_default)?);
                        let $tagged = ($($tagged_present)+).contains(&version) && self.$tagged != plain;
                        count += u32::from($tagged);
                    )*
                    to.unsigned_varint(count);
                    $(
                        if $tagged {
                            to.tag($tag, |to| {
                                $crate::wire::value::Wire::write(&self.$tagged, to, messages!(@null version $($($tagged_null)+)?));
                            });
                        }
                    )*
                }
            }

            #[cfg(test)]
            #[allow(unused_variables, reason = "a message may have no field")]
            fn sample(chance: &mut $crate::wire::tests::Chance, shape: $crate::wire::read::Shape, _: bool) -> Self {
                let version = shape.version;
                Self {
                    $(
                        $field: if ($($present)+).contains(&version) {
                            <$ty as $crate::wire::value::Wire>::sample(chance, shape, messages!(@null version $($($null)+)?))
                        } else {
                            messages!(@default $($default)?)
                        },
                    )*
                    $(
                        $tagged: if shape.flexible && ($($tagged_present)+).contains(&version) && chance.one_in(2) {
                            <$tagged_ty as $crate::wire::value::Wire>::sample(chance, shape, messages!(@null version $($($tagged_null)+)?))
                        } else {
                            messages!(@default $($tagged_default)?)
                        },
                    )*
                }
            }
        }
    )+};

    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@null $version:ident) => { false };
    (@null $version:ident $($null:tt)+) => { ($($null)+).contains(&$version) };
}

/// A struct that a field may leave out: a byte in front says whether it is there (-1 or 1). Only flexible
/// versions have such fields.
macro_rules! nullable {
    ($($name:ident)+) => {$(
        impl $crate::wire::value::Wire for Option<$name> {
            fn least(_: $crate::wire::read::Shape) -> usize {
                1
            }

            fn read(from: &mut $crate::wire::read::Reader, null: bool) -> Result<Self, $crate::wire::WireError> {
                match i8::read(from, false)? {
                    1 => Ok(Some($name::read(from, false)?)),
                    i8::MIN..=-1 if null => Ok(None),
                    i8::MIN..=-1 => Err($crate::wire::error::Fault::Null.into()),
                    other => Err($crate::wire::error::Fault::Presence(other).into()),
                }
            }

            fn write(&self, to: &mut $crate::wire::write::Writer, _: bool) {
                match self {
                    Some(value) => {
                        1_i8.write(to, false);
                        value.write(to, false);
                    }
                    None => (-1_i8).write(to, false),
                }
            }

            #[cfg(test)]
            fn sample(chance: &mut $crate::wire::tests::Chance, shape: $crate::wire::read::Shape, null: bool) -> Self {
                if null && chance.one_in(3) { None } else { Some($name::sample(chance, shape, false)) }
            }
        }
    )+};
}

macro_rules! apis {
    ($(
        $(#[doc = $doc:literal])+
        $key:literal $name:ident : $request:ident => $response:ident, serve [$min:literal, $max:literal], advertise $advertised:literal, flexible $flexible:literal;
    )+) => {
        /// The APIs this node serves, by Kafka's names and numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $( $(#[doc = $doc])+ $name = $key, )+
        }

        /// What is served: the one table that answers ApiVersions and that requests are checked against.
        pub static APIS: &[Api] = &[
            $( Api { key: ApiKey::$name, name: stringify!($name), about: concat!($($doc),+), min: $min, max: $max, advertised_min: $advertised, flexible_from: $flexible }, )+
        ];

        impl ApiKey {
            /// The API of this number, if it is served.
            #[must_use]
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $( $key => Some(Self::$name), )+
                    _ => None,
                }
            }

            /// Its line in [`APIS`].
            #[must_use]
            pub const fn api(self) -> &'static Api {
                match self {
                    $(
                        Self::$name => {
                            const API: &Api = &Api { key: ApiKey::$name, name: stringify!($name), about: concat!($($doc),+), min: $min, max: $max, advertised_min: $advertised, flexible_from: $flexible };
                            API
                        }
                    )+
                }
            }
        }

        /// A request of any API.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $( #[doc = concat!("A request of the ", stringify!($name), " API.")] $name($request), )+
        }

        /// A response of any API.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Response {
            $( #[doc = concat!("A response of the ", stringify!($name), " API.")] $name($response), )+
        }

        impl Request {
            /// The API it belongs to.
            #[must_use]
            pub const fn key(&self) -> ApiKey {
                match self { $( Self::$name(_) => ApiKey::$name, )+ }
            }

            pub(super) fn read(key: ApiKey, from: &mut Reader) -> Result<Self, WireError> {
                Ok(match key { $( ApiKey::$name => Self::$name(Wire::read(from, false)?), )+ })
            }

            pub(super) fn write(&self, to: &mut Writer) {
                match self { $( Self::$name(message) => message.write(to, false), )+ }
            }

            #[cfg(test)]
            pub(super) fn sample(key: ApiKey, chance: &mut super::tests::Chance, shape: Shape) -> Self {
                match key { $( ApiKey::$name => Self::$name(Wire::sample(chance, shape, false)), )+ }
            }
        }

        impl Response {
            /// The API it belongs to.
            #[must_use]
            pub const fn key(&self) -> ApiKey {
                match self { $( Self::$name(_) => ApiKey::$name, )+ }
            }

            pub(super) fn read(key: ApiKey, from: &mut Reader) -> Result<Self, WireError> {
                Ok(match key { $( ApiKey::$name => Self::$name(Wire::read(from, false)?), )+ })
            }

            pub(super) fn write(&self, to: &mut Writer) {
                match self { $( Self::$name(message) => message.write(to, false), )+ }
            }

            #[cfg(test)]
            pub(super) fn sample(key: ApiKey, chance: &mut super::tests::Chance, shape: Shape) -> Self {
                match key { $( ApiKey::$name => Self::$name(Wire::sample(chance, shape, false)), )+ }
            }
        }

        $(
            impl From<$request> for Request {
                fn from(message: $request) -> Self {
                    Self::$name(message)
                }
            }

            impl From<$response> for Response {
                fn from(message: $response) -> Self {
                    Self::$name(message)
                }
            }
        )+
    };
}

//! Things as text: `name field=value ...`, one a line. What the vocabularies of the simulators have in common.

use std::fmt;
use std::str::FromStr;

/// Why a line is no op.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError(pub(crate) String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

/// The `field=value` words of a line.
pub(crate) struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    pub(crate) fn new(words: impl Iterator<Item = &'a str>) -> Result<Fields<'a>, ParseError> {
        let pair =
            |word: &'a str| word.split_once('=').ok_or_else(|| ParseError(format!("{word:?} is not field=value")));
        words.map(pair).collect::<Result<_, _>>().map(Fields)
    }

    pub(crate) fn take<T: FromStr>(&mut self, name: &str) -> Result<T, ParseError> {
        let at = self.0.iter().position(|(field, _)| *field == name);
        let at = at.ok_or_else(|| ParseError(format!("field {name:?} is missing")))?;
        let (_, value) = self.0.remove(at);
        value.parse().map_err(|_| ParseError(format!("{name}={value} is out of range or no such value")))
    }

    /// What older texts do not have.
    pub(crate) fn take_or_default<T: FromStr + Default>(&mut self, name: &str) -> Result<T, ParseError> {
        if self.0.iter().any(|(field, _)| *field == name) { self.take(name) } else { Ok(T::default()) }
    }

    pub(crate) fn finish(self) -> Result<(), ParseError> {
        match self.0.first() {
            Some((name, _)) => Err(ParseError(format!("unknown field {name:?}"))),
            None => Ok(()),
        }
    }
}

/// An enum whose values are single words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// Every value.
            pub const ALL: &[$name] = &[$($name::$variant),*];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$variant => $word),* })
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::text::ParseError;
            fn from_str(word: &str) -> Result<$name, $crate::text::ParseError> {
                match word {
                    $($word => Ok($name::$variant),)*
                    _ => Err($crate::text::ParseError(format!("{word:?} is none of {:?}", [$($word),*]))),
                }
            }
        }
    };
}

/// The enum with its text form.
macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $word:literal { $($(#[$field_doc:meta])* $field:ident: $ty:ty),* $(,)? })*) => {
        /// One thing that happens.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Op { $($(#[$doc])* $name { $($(#[$field_doc])* $field: $ty),* }),* }

        impl std::fmt::Display for Op {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Op::$name { $($field),* } => {
                        f.write_str($word)?;
                        $(write!(f, concat!(" ", stringify!($field), "={}"), $field)?;)*
                        Ok(())
                    })*
                }
            }
        }

        impl std::str::FromStr for Op {
            type Err = $crate::text::ParseError;
            fn from_str(line: &str) -> Result<Op, $crate::text::ParseError> {
                let mut words = line.split_whitespace();
                let name = words.next().ok_or_else(|| $crate::text::ParseError("an empty line".into()))?;
                let mut fields = $crate::text::Fields::new(words)?;
                let op = match name {
                    $($word => Op::$name { $($field: fields.take(stringify!($field))?),* },)*
                    _ => return Err($crate::text::ParseError(format!("no op is called {name:?}"))),
                };
                fields.finish().map(|()| op)
            }
        }
    };
}

//! How records are written: a version byte, then fields by ascending number, each with a key that
//! says its number and whether a number or bytes follow. A field that has its default is left out,
//! so a field that is added later has its default in every record that is older than it.
//!
//! The rule for changes is in `docs/adr/0016-state.md`: numbers are never used again, a new field
//! comes with a new schema version, and a field that is not known is damage and not something to
//! skip, because who wrote the record back would lose it.

/// The version of this form.
const VERSION: u8 = 1;
/// The most bytes of a number.
const NUMBER_BYTES_MAX: usize = 10;

/// A record is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It begins with another version of the form, or is empty.
    #[error("the record has no form that is known")]
    Version,
    /// It ends in the middle.
    #[error("the record ends in the middle of a field")]
    Truncated,
    /// A number has more than 64 bits.
    #[error("a number in the record is too large")]
    Number,
    /// A field has a number that is not known, or not above the one before.
    #[error("the record has a field {0} that is not known or not in order")]
    Field(u64),
    /// A field has a value that cannot be.
    #[error("field {0} of the record has a value that cannot be")]
    Value(u8),
}

/// Writes a record.
pub(crate) struct FieldWriter {
    bytes: Vec<u8>,
    last: u8,
}

impl FieldWriter {
    pub fn new() -> Self {
        Self {
            bytes: vec![VERSION],
            last: 0,
        }
    }

    /// A number whose default is 0.
    pub fn number(&mut self, field: u8, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.key(field, 0);
            put_number(&mut self.bytes, value);
        }
    }

    /// A number whose default is none.
    pub fn some_number(&mut self, field: u8, value: Option<u64>) {
        if let Some(value) = value {
            self.key(field, 0);
            put_number(&mut self.bytes, value);
        }
    }

    /// A signed number whose default is 0.
    pub fn signed(&mut self, field: u8, value: i64) {
        let folded = (value << 1) ^ (value >> 63);
        self.number(field, folded.cast_unsigned());
    }

    /// Bytes whose default is none at all.
    pub fn bytes(&mut self, field: u8, value: &[u8]) {
        self.some_bytes(field, (!value.is_empty()).then_some(value));
    }

    /// Bytes whose default is none, as opposed to empty.
    pub fn some_bytes(&mut self, field: u8, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.key(field, 1);
            put_bytes(&mut self.bytes, value);
        }
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn key(&mut self, field: u8, kind: u64) {
        assert!(field > self.last, "fields are written in order");
        self.last = field;
        put_number(&mut self.bytes, u64::from(field) << 1 | kind);
    }
}

/// A number, seven bits in a byte, lowest first.
pub(crate) fn put_number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Bytes behind their length.
pub(crate) fn put_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    put_number(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a record whose highest number is `N`.
pub(crate) struct Fields<'a, const N: usize>([Option<Value<'a>>; N]);

impl<'a, const N: usize> Fields<'a, N> {
    pub fn parse(record: &'a [u8]) -> Result<Self, DecodeError> {
        let Some((&VERSION, rest)) = record.split_first() else {
            return Err(DecodeError::Version);
        };
        let mut fields = Fields([None; N]);
        let (mut items, mut last) = (Items(rest), 0);
        while !items.is_empty() {
            let key = items.number()?;
            let (field, kind) = (key >> 1, key & 1);
            let place = usize::try_from(field)
                .ok()
                .and_then(|field| field.checked_sub(1));
            let place = place.and_then(|place| fields.0.get_mut(place));
            let Some(place) = place.filter(|_| field > last) else {
                return Err(DecodeError::Field(field));
            };
            last = field;
            *place = Some(match kind {
                0 => Value::Number(items.number()?),
                _ => Value::Bytes(items.bytes()?),
            });
        }
        Ok(fields)
    }

    fn value(&self, field: u8) -> Option<Value<'a>> {
        self.0
            .get(usize::from(field).wrapping_sub(1))
            .copied()
            .flatten()
    }

    pub fn some_number(&self, field: u8) -> Result<Option<u64>, DecodeError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::Number(value)) => Ok(Some(value)),
            Some(Value::Bytes(_)) => Err(DecodeError::Value(field)),
        }
    }

    pub fn number(&self, field: u8) -> Result<u64, DecodeError> {
        Ok(self.some_number(field)?.unwrap_or(0))
    }

    pub fn small(&self, field: u8) -> Result<u32, DecodeError> {
        u32::try_from(self.number(field)?).map_err(|_| DecodeError::Value(field))
    }

    pub fn signed(&self, field: u8) -> Result<i64, DecodeError> {
        let folded = self.number(field)?;
        Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    pub fn some_bytes(&self, field: u8) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::Bytes(value)) => Ok(Some(value)),
            Some(Value::Number(_)) => Err(DecodeError::Value(field)),
        }
    }

    pub fn bytes(&self, field: u8) -> Result<&'a [u8], DecodeError> {
        Ok(self.some_bytes(field)?.unwrap_or(&[]))
    }

    pub fn some_text(&self, field: u8) -> Result<Option<String>, DecodeError> {
        self.some_bytes(field)?
            .map(|bytes| text(field, bytes))
            .transpose()
    }

    pub fn text(&self, field: u8) -> Result<String, DecodeError> {
        text(field, self.bytes(field)?)
    }
}

/// What a field holds as text.
pub(crate) fn text(field: u8, bytes: &[u8]) -> Result<String, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Value(field))?;
    Ok(text.to_owned())
}

/// Numbers and byte strings one after another.
pub(crate) struct Items<'a>(pub &'a [u8]);

impl<'a> Items<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for index in 0..NUMBER_BYTES_MAX {
            let Some((&byte, rest)) = self.0.split_first() else {
                return Err(DecodeError::Truncated);
            };
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if index == NUMBER_BYTES_MAX - 1 && bits > 1 {
                return Err(DecodeError::Number);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Number)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.number()?).map_err(|_| DecodeError::Truncated)?;
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_every_length_come_back_and_larger_ones_are_refused() {
        for bit in 0..64 {
            for value in [1u64 << bit, (1 << bit) - 1, u64::MAX >> bit] {
                let mut bytes = Vec::new();
                put_number(&mut bytes, value);
                let mut items = Items(&bytes);
                assert_eq!(items.number(), Ok(value));
                assert!(items.is_empty());
                for end in 0..bytes.len() {
                    assert_eq!(Items(&bytes[..end]).number(), Err(DecodeError::Truncated));
                }
            }
        }
        let mut too_large = [0xff; 10];
        too_large[9] = 0x02;
        assert_eq!(Items(&too_large).number(), Err(DecodeError::Number));
        assert_eq!(Items(&[0xff; 11]).number(), Err(DecodeError::Number));
    }

    #[test]
    fn fields_out_of_order_or_unknown_are_refused() {
        let record = |keys: &[u8]| {
            let mut bytes = vec![VERSION];
            for key in keys {
                bytes.extend([key << 1, 7]);
            }
            bytes
        };
        let parse = |bytes: &[u8]| Fields::<3>::parse(bytes).map(|_| ());
        assert_eq!(parse(&record(&[1, 3])), Ok(()));
        assert_eq!(parse(&record(&[3, 1])), Err(DecodeError::Field(1)));
        assert_eq!(parse(&record(&[2, 2])), Err(DecodeError::Field(2)));
        assert_eq!(parse(&record(&[0])), Err(DecodeError::Field(0)));
        assert_eq!(parse(&record(&[4])), Err(DecodeError::Field(4)));
        assert_eq!(parse(&[]), Err(DecodeError::Version));
        assert_eq!(parse(&[2]), Err(DecodeError::Version));
        let fields = record(&[2]);
        let fields = Fields::<3>::parse(&fields).unwrap();
        assert_eq!(fields.number(2), Ok(7));
        assert_eq!(fields.some_number(1), Ok(None));
        assert_eq!(fields.bytes(2), Err(DecodeError::Value(2)));
    }

    proptest! {
        #[test]
        fn signed_numbers_come_back(value in any::<i64>()) {
            let mut writer = FieldWriter::new();
            writer.signed(1, value);
            let record = writer.finish();
            prop_assert_eq!(Fields::<1>::parse(&record).unwrap().signed(1), Ok(value));
        }
    }
}

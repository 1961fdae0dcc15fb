//! From bytes to the tape of tokens: one pass, a bounded stack, no recursion.

use super::{Error, ErrorKind, Kind, Limits, Token};

/// The tokens of the one value at the start of `input`, the root first.
pub(super) fn tokens(input: &[u8], limits: &Limits) -> Result<Vec<Token>, Error> {
    if input.len() > limits.bytes_max as usize {
        let kind = ErrorKind::TooManyBytes(limits.bytes_max);
        return Err(Error {
            offset: limits.bytes_max as usize,
            kind,
        });
    }
    let mut parser = Parser {
        input,
        limits,
        at: 0,
        budget: limits.tokens_max,
        tokens: Vec::new(),
        open: Vec::new(),
    };
    loop {
        parser.step()?;
        if parser.open.is_empty() {
            return Ok(parser.tokens);
        }
    }
}

/// A list or dictionary whose end has not come yet.
struct Open<'input> {
    index: usize,
    is_dict: bool,
    /// Of a dictionary: a key was read and its value has to follow.
    value_due: bool,
    previous_key: Option<&'input [u8]>,
}

struct Parser<'input, 'limits> {
    input: &'input [u8],
    limits: &'limits Limits,
    /// The offset of the next byte to read. At most `input.len()`, so it fits 32 bits.
    at: usize,
    /// Tokens that may still come.
    budget: u32,
    tokens: Vec<Token>,
    open: Vec<Open<'input>>,
}

impl<'input> Parser<'input, '_> {
    /// Reads one token: a scalar, the start of a container or its end.
    fn step(&mut self) -> Result<(), Error> {
        let start = self.at;
        let first = self.peek()?;
        self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            self.error_at(start, ErrorKind::TooManyTokens(self.limits.tokens_max))
        })?;
        if first == b'e' && !self.open.is_empty() {
            return self.close();
        }
        let key_due = self
            .open
            .last()
            .is_some_and(|open| open.is_dict && !open.value_due);
        if key_due && !first.is_ascii_digit() {
            let known = matches!(first, b'i' | b'l' | b'd');
            let kind = if known {
                ErrorKind::KeyNotString
            } else {
                ErrorKind::UnexpectedByte(first)
            };
            return Err(self.error_at(start, kind));
        }
        match first {
            b'i' => self.integer()?,
            b'0'..=b'9' => self.string()?,
            b'l' => self.open_container(Kind::List)?,
            b'd' => self.open_container(Kind::Dict)?,
            other => return Err(self.error_at(start, ErrorKind::UnexpectedByte(other))),
        }
        Ok(())
    }

    fn integer(&mut self) -> Result<(), Error> {
        let start = self.at;
        self.at += 1;
        let negative = self.peek()? == b'-';
        if negative {
            self.at += 1;
        }
        let digits_start = self.at;
        while self.peek()?.is_ascii_digit() {
            self.at += 1;
        }
        let terminator = self.peek()?;
        if terminator != b'e' {
            return Err(self.error_at(self.at, ErrorKind::UnexpectedByte(terminator)));
        }
        let digits = &self.input[digits_start..self.at];
        let canonical = match digits.first() {
            None => false,
            Some(b'0') => digits.len() == 1 && !negative,
            Some(_) => true,
        };
        if !canonical {
            return Err(self.error_at(start, ErrorKind::IntegerNotCanonical));
        }
        self.at += 1;
        self.push(Kind::Integer, start, self.at, 0);
        self.value_done();
        Ok(())
    }

    fn string(&mut self) -> Result<(), Error> {
        let start = self.at;
        let mut length: usize = 0;
        loop {
            let byte = self.peek()?;
            match byte {
                b'0'..=b'9' => {
                    if length == 0 && self.at > start {
                        return Err(self.error_at(start, ErrorKind::LengthNotCanonical));
                    }
                    // A length that no input can hold saturates, and is refused below.
                    length = length
                        .saturating_mul(10)
                        .saturating_add(usize::from(byte - b'0'));
                    self.at += 1;
                }
                b':' => break,
                other => return Err(self.error_at(self.at, ErrorKind::UnexpectedByte(other))),
            }
        }
        self.at += 1;
        let content = self.at;
        if length > self.input.len() - content {
            return Err(self.error_at(start, ErrorKind::StringTooLong));
        }
        self.at = content + length;
        self.push(Kind::Bytes, start, self.at, content);
        self.string_done(&self.input[content..content + length]);
        Ok(())
    }

    fn open_container(&mut self, kind: Kind) -> Result<(), Error> {
        let start = self.at;
        if self.open.len() >= self.limits.depth_max as usize {
            return Err(self.error_at(start, ErrorKind::TooDeep(self.limits.depth_max)));
        }
        self.at += 1;
        self.open.push(Open {
            index: self.tokens.len(),
            is_dict: kind == Kind::Dict,
            value_due: false,
            previous_key: None,
        });
        self.push(kind, start, start, 0);
        Ok(())
    }

    /// Reads the `e` that ends the innermost container.
    fn close(&mut self) -> Result<(), Error> {
        if let Some(open) = self.open.pop() {
            if open.value_due {
                return Err(self.error_at(self.at, ErrorKind::KeyWithoutValue));
            }
            self.at += 1;
            let after = self.tokens.len() as u32;
            let token = &mut self.tokens[open.index];
            token.end = self.at as u32;
            token.link = after;
            self.value_done();
        }
        Ok(())
    }

    /// A string is a key where one is due, and a value elsewhere.
    fn string_done(&mut self, content: &'input [u8]) {
        let Some(open) = self.open.last_mut() else {
            return;
        };
        if !open.is_dict || open.value_due {
            open.value_due = false;
            return;
        }
        open.value_due = true;
        if open
            .previous_key
            .is_some_and(|previous| previous >= content)
        {
            self.tokens[open.index].keys_ascend = false;
        }
        open.previous_key = Some(content);
    }

    /// A value that is not a string is complete; it was not a key.
    fn value_done(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.value_due = false;
        }
    }

    /// Offsets fit 32 bits because `Limits::bytes_max` does.
    fn push(&mut self, kind: Kind, start: usize, end: usize, link: usize) {
        let (start, end, link) = (start as u32, end as u32, link as u32);
        self.tokens.push(Token {
            kind,
            keys_ascend: true,
            start,
            end,
            link,
        });
    }

    fn peek(&self) -> Result<u8, Error> {
        let byte = self.input.get(self.at).copied();
        byte.ok_or_else(|| self.error_at(self.at, ErrorKind::UnexpectedEnd))
    }

    fn error_at(&self, offset: usize, kind: ErrorKind) -> Error {
        Error { offset, kind }
    }
}

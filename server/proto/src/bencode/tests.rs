use super::*;

fn parse(input: &[u8]) -> Result<Document<'_>, Error> {
    Document::parse(input, &Limits::METAINFO)
}

#[test]
fn reads_the_four_kinds() {
    let input = b"d3:keyl2:abi-5ee4:zerod1:xi0eee";
    let document = parse(input).unwrap();
    let list: Vec<_> = document
        .root()
        .get(b"key")
        .unwrap()
        .list()
        .unwrap()
        .collect();
    assert_eq!(list[0].as_bytes(), Some(&b"ab"[..]));
    assert_eq!(list[0].as_str(), Some("ab"));
    assert_eq!(list[1].as_integer(), Some(-5));
    assert_eq!(list.len(), 2);
    let inner = document.root().get(b"zero").unwrap();
    assert_eq!(inner.get(b"x").unwrap().as_integer(), Some(0));
    assert_eq!(inner.raw(), b"d1:xi0ee");
    assert_eq!(&input[inner.offset()..][..inner.raw().len()], inner.raw());
    assert_eq!(document.trailing(), b"");
}

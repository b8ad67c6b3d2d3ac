//! A value derived from an immutable one, computed at most once and shared by everybody who asks.

use std::any::Any;
use std::sync::OnceLock;

/// Derived values, one for each type asked for.
///
/// The list is as long as the program has types that it derives from one thing: one or two.
#[derive(Default)]
pub struct Memo {
    first: OnceLock<Box<Node>>,
}

struct Node {
    value: Box<dyn Any + Send + Sync>,
    next: Memo,
}

impl Memo {
    /// The derived value of type `T`, if somebody asked for one before.
    pub fn find<T: Any>(&self) -> Option<&T> {
        let mut memo = self;
        loop {
            let node = memo.first.get()?;
            if let Some(value) = node.value.downcast_ref::<T>() {
                return Some(value);
            }
            memo = &node.next;
        }
    }

    /// The derived value of type `T`; `derive` runs only if nobody asked for a `T` before.
    pub fn get<T, F>(&self, derive: F) -> &T
    where
        T: Any + Send + Sync,
        F: FnOnce() -> T,
    {
        let mut derive = Some(derive);
        let mut memo = self;
        loop {
            let node = memo.first.get_or_init(|| {
                let derive = derive.take().expect("a new node ends the search, so it is made at most once");
                Box::new(Node { value: Box::new(derive()), next: Memo::default() })
            });
            if let Some(value) = node.value.downcast_ref::<T>() {
                return value;
            }
            memo = &node.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Memo;

    #[test]
    fn a_value_is_derived_once_for_each_type() {
        let memo = Memo::default();
        assert_eq!(memo.find::<u8>(), None);
        assert_eq!(*memo.get(|| 1_u8), 1);
        assert_eq!((memo.find::<u8>(), memo.find::<String>()), (Some(&1), None));
        assert_eq!(memo.get(|| String::from("one")), "one");
        assert_eq!(*memo.get::<u8, _>(|| panic!("derived twice")), 1);
        assert_eq!(memo.get::<String, _>(|| panic!("derived twice")), "one");
    }
}

//! One page of a list: how many things are on it, and how large it may become. Pure.

/// The most things on one page,
pub const MAX_PAGE: usize = 1000;
/// and how many there are unless another number is asked for.
pub const USUAL_PAGE: usize = 100;
/// A page ends once it has this many bytes, however many things were asked for.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// Some of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// The list goes on after the last of them.
    pub more: bool,
}

/// A page that things are put on, one after the other.
#[derive(Debug)]
pub(super) struct Filling<T> {
    page: Page<T>,
    bytes: usize,
    most: usize,
}

impl<T> Filling<T> {
    /// For at most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { page: Page { items: Vec::new(), more: false }, bytes: 0, most }
    }

    /// The next thing of the list. False when the page ends before it.
    pub(super) fn add(&mut self, item: T, bytes: usize) -> bool {
        let items = &mut self.page.items;
        self.bytes += bytes;
        self.page.more = items.len() == self.most || (self.bytes > MAX_PAGE_BYTES && !items.is_empty());
        if !self.page.more {
            items.push(item);
        }
        !self.page.more
    }

    pub(super) fn page(self) -> Page<T> {
        self.page
    }
}

impl<T> Page<T> {
    /// Takes from a list until there are `most`, or [`MAX_PAGE_BYTES`] as `bytes_of` counts them, but at least one.
    pub fn fill(list: impl IntoIterator<Item = T>, most: usize, bytes_of: impl Fn(&T) -> usize) -> Self {
        let mut filling = Filling::new(most);
        for item in list {
            let bytes = bytes_of(&item);
            if !filling.add(item, bytes) {
                break;
            }
        }
        filling.page()
    }

    /// What says where the next page begins, made of the last thing on this one; `None` if it is the last page.
    pub fn next<N>(&self, after: impl FnOnce(&T) -> N) -> Option<N> {
        self.items.last().filter(|_| self.more).map(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(sizes: &[usize], most: usize) -> (Vec<usize>, bool) {
        let page = Page::fill(sizes.iter().copied(), most, |size| *size);
        assert_eq!(page.next(|last| *last), page.items.last().copied().filter(|_| page.more));
        (page.items, page.more)
    }

    #[test]
    fn a_page_ends_with_its_number_or_its_bytes() {
        assert_eq!(fill(&[], 2), (vec![], false));
        assert_eq!(fill(&[1, 2], 2), (vec![1, 2], false));
        assert_eq!(fill(&[1, 2, 3], 2), (vec![1, 2], true));
        let half = MAX_PAGE_BYTES / 2;
        assert_eq!(fill(&[half, half], 9), (vec![half, half], false));
        assert_eq!(fill(&[half, half, 1], 9), (vec![half, half], true));
    }

    #[test]
    fn a_page_has_one_thing_however_large() {
        let large = 2 * MAX_PAGE_BYTES;
        assert_eq!(fill(&[large], 9), (vec![large], false));
        assert_eq!(fill(&[large, 1], 9), (vec![large], true));
    }
}

//! Lists that come in pages: asking for one page after the other, and showing them as they come. Nothing here knows what
//! is listed.

use serde_json::Value;

use super::show;

/// So much is asked for at a time: the most that a hub puts on a page.
const PAGE: i32 = 1000;

/// What a page is asked for with: how many things it may have, and the token of the page before.
pub(super) type Asked = (i32, String);

/// All of a list.
pub(super) async fn all<T>(page: impl AsyncFnMut(Asked) -> anyhow::Result<(Vec<T>, String)>) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::new();
    each(u64::MAX, page, |items| {
        all.extend(items);
        Ok(true)
    })
    .await?;
    Ok(all)
}

/// How a list is shown: as rows below a head, or as JSON, one object a line.
pub(super) struct List<T> {
    pub(super) json: bool,
    pub(super) head: &'static [&'static str],
    pub(super) row: fn(&T) -> Vec<String>,
    pub(super) object: fn(&T) -> Value,
}

impl<T> List<T> {
    /// Shows a list page by page: it may be of any length. Ends with the list, after `limit` things, or when nobody reads
    /// what is printed any more.
    pub(super) async fn show(
        &self,
        limit: u64,
        page: impl AsyncFnMut(Asked) -> anyhow::Result<(Vec<T>, String)>,
    ) -> anyhow::Result<()> {
        let mut is_first = true;
        each(limit, page, |items| {
            let shown_before = !std::mem::take(&mut is_first);
            if self.json {
                return self.lines(&items);
            }
            if shown_before && items.is_empty() {
                return Ok(true);
            }
            let head: Vec<String> = self.head.iter().map(|name| (*name).to_owned()).collect();
            let rows: Vec<_> = [head].into_iter().chain(items.iter().map(self.row)).collect();
            let table = show::table(&rows);
            show::print(if shown_before { below_head(&table) } else { &table })
        })
        .await
    }

    fn lines(&self, items: &[T]) -> anyhow::Result<bool> {
        for item in items {
            if !show::print(&(self.object)(item).to_string())? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The rows of a table that goes on.
fn below_head(table: &str) -> &str {
    table.split_once('\n').map_or("", |(_, rows)| rows)
}

/// Asks for page after page, until the last, or until there are `limit` things, or until `take` wants no more.
async fn each<T>(
    limit: u64,
    mut page: impl AsyncFnMut(Asked) -> anyhow::Result<(Vec<T>, String)>,
    mut take: impl FnMut(Vec<T>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let (mut left, mut token) = (limit, String::new());
    loop {
        let most = i32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let (items, next) = page((most, token)).await?;
        left = left.saturating_sub(items.len() as u64);
        if !take(items)? || left == 0 || next.is_empty() {
            return Ok(());
        }
        token = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of these numbers, on pages of as many as the lengths say.
    async fn taken(limit: u64, lengths: &[usize]) -> (Vec<usize>, Vec<Asked>) {
        let (mut asked, mut taken) = (Vec::new(), Vec::new());
        let page = async |(most, token): Asked| {
            let at: usize = token.parse().unwrap_or(0);
            asked.push((most, token));
            let first: usize = lengths[..at].iter().sum();
            let items: Vec<_> = (first..first + lengths[at]).take(usize::try_from(most).unwrap()).collect();
            let next = Some(at + 1).filter(|next| *next < lengths.len());
            Ok((items, next.map(|next| next.to_string()).unwrap_or_default()))
        };
        let take = |items| {
            taken.extend(items);
            Ok(true)
        };
        each(limit, page, take).await.unwrap();
        (taken, asked)
    }

    #[tokio::test]
    async fn pages_are_asked_for_until_the_last_even_behind_an_empty_one() {
        let (got, asked) = taken(u64::MAX, &[2, 0, 3]).await;
        assert_eq!(got, [0, 1, 2, 3, 4]);
        assert_eq!(asked, [(1000, String::new()), (1000, "1".to_owned()), (1000, "2".to_owned())]);
    }

    #[tokio::test]
    async fn no_more_is_asked_for_than_is_shown() {
        let (got, asked) = taken(3, &[2, 2, 2]).await;
        assert_eq!(got, [0, 1, 2]);
        assert_eq!(asked, [(3, String::new()), (1, "1".to_owned())]);
        assert_eq!(taken(2, &[2, 2]).await.1.len(), 1);
        assert_eq!(taken(1000, &[2]).await.1[0].0, 1000);
        assert_eq!(taken(1001, &[2]).await.1[0].0, 1000);
    }

    #[tokio::test]
    async fn a_failure_ends_a_list() {
        let error = all::<u8>(async |_| Err(anyhow::anyhow!("no"))).await.unwrap_err();
        assert_eq!(error.to_string(), "no");
    }

    #[test]
    fn a_table_that_goes_on_has_no_second_head() {
        assert_eq!(below_head("N\n1\n2\n"), "1\n2\n");
        assert_eq!(below_head("N\n"), "");
    }
}

//! What the authorities in a file do, where no database says it.

use mesh_credentials::authority_file::FiledAuthority;

use crate::store::{AuthorityState, StoredAuthority};

/// The one that signs, then the others: one that signs next at most, and those from before. Where the file does not say which
/// signs, it is the oldest: a rotation that was only prepared has changed nothing for the nodes.
pub(super) fn states_in(filed: &[FiledAuthority]) -> Vec<StoredAuthority> {
    let age = |it: &&FiledAuthority| it.trusted().presented.not_after;
    let said = |it: &&FiledAuthority| it.state == Some(AuthorityState::Signs);
    // Of several that say so, the newest took the place of the others.
    let signs = filed.iter().filter(said).max_by_key(age);
    let Some(signs) = signs.or_else(|| filed.iter().min_by_key(age)) else {
        return Vec::new();
    };
    let key = |it: &FiledAuthority| it.trusted().key();
    let others = || filed.iter().filter(|it| key(it) != key(signs));
    let is_next = |it: &&FiledAuthority| match it.state {
        Some(state) => state == AuthorityState::Next,
        None => signs.state.is_none(),
    };
    let next = others().filter(is_next).max_by_key(age).map(key);
    let stored = |it: &FiledAuthority, state| StoredAuthority {
        trusted: it.trusted().clone(),
        state,
    };
    let rest = others().map(|it| match Some(key(it)) == next {
        true => stored(it, AuthorityState::Next),
        false => stored(it, AuthorityState::Last),
    });
    let signs = stored(signs, AuthorityState::Signs);
    std::iter::once(signs).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use mesh_credentials::authority::Authority;
    use mesh_credentials::name::MeshId;

    use super::*;

    #[test]
    fn the_file_says_which_signs_and_where_it_does_not_the_oldest_does() {
        use AuthorityState::{Last, Next, Signs};
        let mesh = MeshId::make();
        let made = |at: i64| Authority::make(mesh.clone(), 1_800_000_000 + at).unwrap();
        let all = [made(0), made(1), made(2)].map(FiledAuthority::from);
        let states = |said: [Option<AuthorityState>; 3]| {
            let mut filed = all.clone();
            for (it, state) in filed.iter_mut().zip(said) {
                it.state = state;
            }
            let found = states_in(&filed);
            all.clone().map(|it| {
                let key = it.trusted().key();
                let found = found.iter().find(|found| found.trusted.key() == key);
                found.unwrap().state
            })
        };
        assert_eq!(
            states([Some(Last), Some(Signs), Some(Next)]),
            [Last, Signs, Next]
        );
        assert_eq!(states([None; 3]), [Signs, Last, Next]);
        assert_eq!(states([None, Some(Signs), None]), [Last, Signs, Last]);
        assert_eq!(
            states([Some(Signs), Some(Signs), Some(Last)]),
            [Last, Signs, Last]
        );
        assert_eq!(
            states_in(&all[..2])[0].trusted.key(),
            all[0].trusted().key()
        );
        assert!(states_in(&[]).is_empty());
    }
}

//! Operators: made, listed, revoked.

use mesh_credentials::operator_token::OperatorToken;
use mesh_credentials::secret::Secret;
use mesh_rest::operator::{
    CreateOperator, CreatedOperator, LONGEST_NAME, OperatorEntry, OperatorList, Role,
};

use super::audit::Doer;
use super::refusal::CredentialError;
use super::short_id;
use crate::registry::{Registry, unix_seconds};
use crate::store::StoredOperator;

/// An operator whose token was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// By which it is revoked.
    pub id: String,
    /// Who it is.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl Registry {
    /// Makes an operator.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn create_operator(
        &self,
        create: &CreateOperator,
        doer: &Doer,
    ) -> Result<CreatedOperator, CredentialError> {
        let length = create.name.chars().count();
        if !(1..=LONGEST_NAME).contains(&length) || create.name.chars().any(char::is_control) {
            let rule =
                format!("a name is 1 to {LONGEST_NAME} characters without control characters");
            return Err(CredentialError::Field {
                field: "name",
                rule,
            });
        }
        let token = OperatorToken {
            id: short_id(),
            secret: Secret::make()?,
        };
        let stored = StoredOperator {
            operator_id: token.id.clone(),
            name: create.name.clone(),
            role: create.role,
            secret: token.secret.digest(),
            created_at: unix_seconds(),
            revoked_at: None,
        };
        let (name, role) = (&create.name, create.role.as_str());
        let subject = format!("operator {name} ({}), {role}", token.id);
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        self.check_first(&mut change, create.force).await?;
        if let Some(id) = change.operator_called(name).await? {
            change.roll_back().await?;
            return Err(CredentialError::NotNow(format!(
                "there is an operator called {name:?} already, {id}; take another name, or let that one do nothing any more \
                 first: quilt-mesh-control operator revoke {id}"
            )));
        }
        change.add_operator(&stored).await?;
        change
            .keep_audit(&doer.did("create operator", &subject))
            .await?;
        self.finish_credentials(change).await?;
        Ok(CreatedOperator {
            id: token.id.clone(),
            token: token.to_string(),
        })
    }

    /// The operators there are, by name.
    #[must_use]
    pub fn operators(&self) -> OperatorList {
        let state = self.credentials.state();
        let entry = |operator: &StoredOperator| OperatorEntry {
            id: operator.operator_id.clone(),
            name: operator.name.clone(),
            role: operator.role,
            created_at: operator.created_at,
            revoked_at: operator.revoked_at,
        };
        let mut operators: Vec<OperatorEntry> = state.operators.values().map(entry).collect();
        operators.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        OperatorList { operators }
    }

    /// Lets an operator do nothing any more.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn revoke_operator(&self, id: &str, doer: &Doer) -> Result<(), CredentialError> {
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        if !change.revoke_operator(id, unix_seconds()).await? {
            change.roll_back().await?;
            let id = id.to_owned();
            return Err(CredentialError::NothingToRevoke {
                what: "operator",
                id,
            });
        }
        let subject = format!("operator {id}");
        change
            .keep_audit(&doer.did("revoke operator", &subject))
            .await?;
        self.finish_credentials(change).await?;
        Ok(())
    }

    /// The operator with this token.
    #[must_use]
    pub fn operator(&self, token: &OperatorToken) -> Option<Operator> {
        let state = self.credentials.state();
        let stored = state.operators.get(&token.id)?;
        let holds = stored.secret.is_of(&token.secret) && stored.revoked_at.is_none();
        holds.then(|| Operator {
            id: stored.operator_id.clone(),
            name: stored.name.clone(),
            role: stored.role,
        })
    }
}

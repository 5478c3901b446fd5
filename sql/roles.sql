-- Two roles that may do what server and processor do, and no more; for a PostgreSQL of your own.
--
-- The program does not apply this file. Run it in the database as the owner of the tables, who also
-- may create roles (or as a superuser), once the schema is there, and again after each update:
--
--     DATABASE_URL=… python -m etl.processor     as the owner, until it says "working"
--     psql … -f sql/roles.sql
--     psql … -c '\password etl_server' -c '\password etl_processor'
--
-- Then start server and processor each with a DATABASE_URL of its own. Other names than these two:
--
--     psql … -c "SET etl.server_role = 'a'" -c "SET etl.processor_role = 'b'" -f sql/roles.sql
--
-- Neither role can create, drop, alter or truncate anything. So what a later version adds to the
-- schema is again the owner's to apply, as above; until then the processor waits and says so.

DO $$
DECLARE
    server text := coalesce(nullif(current_setting('etl.server_role', true), ''), 'etl_server');
    processor text :=
        coalesce(nullif(current_setting('etl.processor_role', true), ''), 'etl_processor');
    wanted text;
BEGIN
    -- Until PostgreSQL 14 everyone may create tables here.
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;

    FOREACH wanted IN ARRAY ARRAY[server, processor] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', wanted);
        ELSIF (SELECT rolsuper FROM pg_roles WHERE rolname = wanted) THEN
            RAISE EXCEPTION 'role % is a superuser, whom no right can be taken', wanted;
        END IF;
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %I', wanted);
        EXECUTE format('REVOKE ALL ON SCHEMA public FROM %I', wanted);
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', wanted);
    END LOOP;

    -- The server shows a user's total: what is applied and what is deferred.
    EXECUTE format('GRANT SELECT (user_id, revenue) ON users_revenue TO %I', server);
    EXECUTE format('GRANT SELECT (user_id, delta) ON deferred_revenue TO %I', server);

    -- The processor adds to revenue, which never goes away; offsets of deleted partitions become
    -- one, and what is deferred goes. It never reads dead letters.
    EXECUTE format('GRANT SELECT ON etl_schema_version TO %I', processor);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON users_revenue TO %I', processor);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON partition_offsets TO %I', processor);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON deferred_revenue TO %I', processor);
    EXECUTE format('GRANT INSERT ON dead_letters TO %I', processor);
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION upsert_users_revenue(varchar[], numeric[]) TO %I', processor
    );
END
$$;

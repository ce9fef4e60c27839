-- SPDX-License-Identifier: Apache-2.0
-- Keep patrons out of PostgreSQL's log: psql --file=deploy/postgresql/log-settings.sql, as a superuser, after `createuser`.
-- Without it an error's DETAIL quotes rows and keys, and a log of statements quotes their parameters. The text of the
-- error and of the statement, which contains no value, is logged as before.
ALTER ROLE bookdrop SET log_error_verbosity = terse;
ALTER ROLE bookdrop SET log_parameter_max_length = 0;
ALTER ROLE bookdrop SET log_parameter_max_length_on_error = 0;

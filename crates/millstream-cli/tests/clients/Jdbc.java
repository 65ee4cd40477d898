// What pgjdbc gets from `millstream serve`. The argument is the port; the pipeline is that of the test.

import java.math.BigDecimal;
import java.sql.*;
import java.time.*;
import java.util.*;

public class Jdbc {
    static final String KINDS = "b BOOLEAN, i2 SMALLINT, i4 INT, i8 BIGINT, f4 REAL, f8 DOUBLE, d DECIMAL(38, 10), s VARCHAR, y BYTEA, da DATE,"
        + " t TIME, ts TIMESTAMP, tz TIMESTAMPTZ, a BIGINT[], sa VARCHAR[]";
    static String url;

    static void check(Object got, Object expected) {
        if (!Objects.deepEquals(got, expected)) {
            throw new AssertionError("got " + shown(got) + ", expected " + shown(expected));
        }
    }

    static String shown(Object value) {
        return value instanceof Object[] array ? Arrays.deepToString(array) : String.valueOf(value);
    }

    static List<String> rows(ResultSet rows, String... columns) throws SQLException {
        List<String> all = new ArrayList<>();
        while (rows.next()) {
            List<String> row = new ArrayList<>();
            for (String column : columns) {
                row.add(rows.getString(column));
            }
            all.add(String.join("|", row.stream().map(String::valueOf).toList()));
        }
        rows.close();
        return all;
    }

    static List<String> query(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet result = statement.executeQuery(sql)) {
            int columns = result.getMetaData().getColumnCount();
            List<String> all = new ArrayList<>();
            while (result.next()) {
                StringJoiner row = new StringJoiner("|");
                for (int column = 1; column <= columns; column++) {
                    row.add(String.valueOf(result.getString(column)));
                }
                all.add(row.toString());
            }
            return all;
        }
    }

    static void metadata(Connection connection) throws SQLException {
        DatabaseMetaData data = connection.getMetaData();
        check(data.getDatabaseProductName(), "PostgreSQL");
        check(rows(data.getSchemas(), "TABLE_SCHEM").contains("public"), true);
        check(rows(data.getCatalogs(), "TABLE_CAT").contains("millstream"), true);
        check(rows(data.getTableTypes(), "TABLE_TYPE").containsAll(List.of("TABLE", "VIEW")), true);
        check(rows(data.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"}), "TABLE_NAME", "TABLE_TYPE"),
            List.of("accounts|TABLE", "pairs|TABLE", "sales|TABLE", "per_colour|VIEW", "rich|VIEW"));
        check(rows(data.getTables(null, null, "acc%", null), "TABLE_NAME", "TABLE_TYPE"),
            List.of("accounts_pkey|INDEX", "accounts|TABLE"));
        check(rows(data.getColumns(null, "public", "accounts", "%"), "COLUMN_NAME", "TYPE_NAME", "DATA_TYPE", "NULLABLE", "ORDINAL_POSITION"),
            List.of("id|int8|" + Types.BIGINT + "|0|1", "balance|int8|" + Types.BIGINT + "|0|2"));
        check(rows(data.getColumns(null, "public", "per_colour", "total"), "TYPE_NAME", "DATA_TYPE"), List.of("numeric|" + Types.NUMERIC));
        check(rows(data.getColumns(null, "public", "sales", "price"), "COLUMN_SIZE", "DECIMAL_DIGITS"), List.of("10|2"));
        check(rows(data.getPrimaryKeys(null, "public", "accounts"), "COLUMN_NAME", "KEY_SEQ", "PK_NAME"), List.of("id|1|accounts_pkey"));
        check(rows(data.getPrimaryKeys(null, "public", "pairs"), "COLUMN_NAME", "KEY_SEQ"), List.of("b|1", "a|2"));
        check(rows(data.getPrimaryKeys(null, "public", "sales"), "COLUMN_NAME"), List.of());
        check(rows(data.getIndexInfo(null, "public", "accounts", true, true), "INDEX_NAME", "COLUMN_NAME", "NON_UNIQUE"),
            List.of("accounts_pkey|id|f"));
        check(rows(data.getImportedKeys(null, "public", "accounts"), "FKTABLE_NAME"), List.of());
        check(rows(data.getBestRowIdentifier(null, "public", "accounts", DatabaseMetaData.bestRowSession, false), "COLUMN_NAME"), List.of("id"));
        check(rows(data.getTypeInfo(), "TYPE_NAME").containsAll(List.of("bool", "int8", "numeric", "text", "timestamptz")), true);
        check(rows(data.getTablePrivileges(null, "public", "accounts"), "TABLE_NAME", "GRANTEE").contains("accounts|postgres"), true);
        check(rows(data.getProcedures(null, "public", "%"), "PROCEDURE_NAME"), List.of());
        check(rows(data.getFunctions(null, "public", "%"), "FUNCTION_NAME"), List.of());
    }

    static void types(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE TABLE jdbc_kinds (" + KINDS + ")");
        }
        Object[] values = {true, (short) -2, 3, 1L << 62, 1.5f, 0.1, new BigDecimal("1234567890123456789012345678.0123456789"), "é'\\",
            new byte[] {0, (byte) 255}, LocalDate.of(2024, 2, 29), LocalTime.of(1, 2, 3, 4000), LocalDateTime.of(2024, 1, 1, 1, 1, 1, 5000),
            OffsetDateTime.of(2024, 1, 1, 1, 0, 0, 0, ZoneOffset.UTC), connection.createArrayOf("int8", new Long[] {1L, null, 3L}),
            connection.createArrayOf("text", new String[] {"a b", null, "q'", ""})};
        String places = String.join(", ", Collections.nCopies(values.length, "?"));
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_kinds VALUES (" + places + ")")) {
            for (int index = 0; index < values.length; index++) {
                insert.setObject(index + 1, values[index]);
            }
            check(insert.executeUpdate(), 1);
            for (int index = 0; index < values.length; index++) {
                insert.setNull(index + 1, Types.NULL);
            }
            check(insert.executeUpdate(), 1);
        }
        // From the fifth time on the statement is prepared at the server and values are binary.
        try (PreparedStatement select = connection.prepareStatement("SELECT * FROM jdbc_kinds WHERE b = ? AND i8 = ?")) {
            for (int time = 0; time < 8; time++) {
                select.setBoolean(1, true);
                select.setLong(2, 1L << 62);
                try (ResultSet row = select.executeQuery()) {
                    check(row.next(), true);
                    check(new Object[] {row.getBoolean("b"), row.getShort("i2"), row.getInt("i4"), row.getLong("i8"), row.getFloat("f4"),
                        row.getDouble("f8"), row.getBigDecimal("d"), row.getString("s"), row.getBytes("y"),
                        row.getObject("da", LocalDate.class), row.getObject("t", LocalTime.class), row.getObject("ts", LocalDateTime.class),
                        row.getObject("tz", OffsetDateTime.class)}, Arrays.copyOf(values, 13));
                    check(row.getArray("a").getArray(), new Long[] {1L, null, 3L});
                    check(row.getArray("sa").getArray(), new String[] {"a b", null, "q'", ""});
                    check(row.next(), false);
                }
            }
            ResultSetMetaData columns = select.getMetaData();
            check(List.of(columns.getColumnTypeName(7), columns.getPrecision(7), columns.getScale(7)), List.of("numeric", 38, 10));
            ParameterMetaData parameters = select.getParameterMetaData();
            check(List.of(parameters.getParameterTypeName(1), parameters.getParameterTypeName(2)), List.of("bool", "int8"));
        }
        check(query(connection, "SELECT count(*) FROM jdbc_kinds WHERE b IS NULL AND sa IS NULL"), List.of("1"));
        try (PreparedStatement typed = connection.prepareStatement("SELECT ?::BIGINT + 1, CAST(? AS VARCHAR), ?::TIMESTAMP")) {
            typed.setString(2, "text");
            typed.setLong(1, 6);
            typed.setTimestamp(3, Timestamp.valueOf("2024-01-01 01:02:03.5"));
            ResultSet row = typed.executeQuery();
            check(row.next(), true);
            check(new Object[] {row.getLong(1), row.getString(2), row.getTimestamp(3)},
                new Object[] {7L, "text", Timestamp.valueOf("2024-01-01 01:02:03.5")});
        }
    }

    static void writing(Connection connection) throws SQLException {
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO accounts VALUES (?, ?)")) {
            for (long id = 0; id < 100; id++) {
                insert.setLong(1, id);
                insert.setLong(2, id * 10);
                insert.addBatch();
            }
            check(Arrays.stream(insert.executeBatch()).sum(), 100);
        }
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(7);
            try (ResultSet all = statement.executeQuery("SELECT id FROM accounts ORDER BY id")) {
                long expected = 0;
                while (all.next()) {
                    check(all.getLong(1), expected++);
                }
                check(expected, 100L);
            }
            check(statement.executeUpdate("UPDATE accounts SET balance = balance + 1 WHERE id < 10"), 10);
            Savepoint savepoint = connection.setSavepoint();
            check(statement.executeUpdate("INSERT INTO pairs VALUES (1, 'b', 2)"), 1);
            connection.rollback(savepoint);
        }
        connection.rollback();
        connection.setAutoCommit(true);
        check(query(connection, "SELECT sum(balance) FROM accounts"), List.of("49500"));
        try (PreparedStatement any = connection.prepareStatement("SELECT id FROM accounts WHERE id = ANY(?) ORDER BY id LIMIT ?")) {
            any.setArray(1, connection.createArrayOf("int8", new Long[] {3L, 5L, 7L}));
            any.setInt(2, 2);
            check(rows(any.executeQuery(), "id"), List.of("3", "5"));
        }
        try (Statement statement = connection.createStatement()) {
            statement.execute("INSERT INTO accounts VALUES (1, 1)");
            throw new AssertionError("no error");
        } catch (SQLException error) {
            check(error.getSQLState(), "23505");
        }
        try (PreparedStatement returning = connection.prepareStatement("INSERT INTO accounts VALUES (1000, 1)", Statement.RETURN_GENERATED_KEYS)) {
            returning.executeUpdate();
            throw new AssertionError("no error");
        } catch (SQLException error) {
            check(error.getMessage().contains("RETURNING"), true);
        }
    }

    static void copying(Connection connection) throws Exception {
        var copy = connection.unwrap(org.postgresql.PGConnection.class).getCopyAPI();
        check(copy.copyIn("COPY sales FROM STDIN (FORMAT csv)", new java.io.StringReader("1,red,1.50\n2,blue,2.25\n")), 2L);
        var out = new java.io.StringWriter();
        copy.copyOut("COPY (SELECT id, colour FROM sales ORDER BY id) TO STDOUT", out);
        check(out.toString(), "1\tred\n2\tblue\n");
    }

    /** A cursor over the changes of a view, while another connection makes them; then a request to cancel. */
    static void changes(Connection connection) throws Exception {
        try (Connection other = DriverManager.getConnection(url); Statement follow = other.createStatement()) {
            follow.execute("DECLARE c CURSOR FOR SUBSCRIBE TO per_colour WITH (progress = true)");
            List<String> first = rows(follow.executeQuery("FETCH 3 FROM c WITH (timeout = '20s')"), "op", "colour", "n");
            check(new TreeSet<>(first), new TreeSet<>(List.of("+I|blue|1", "+I|red|1", "=|null|null")));
            try (Statement insert = connection.createStatement()) {
                insert.execute("INSERT INTO sales VALUES (3, 'red', 1)");
            }
            check(rows(follow.executeQuery("FETCH 3 FROM c WITH (timeout = '20s')"), "op", "colour", "n"),
                List.of("-D|red|1", "+I|red|2", "=|null|null"));
            check(query(connection, "SELECT colour, n, total FROM per_colour ORDER BY colour"), List.of("blue|1|2.25", "red|2|2.50"));
            Timer timer = new Timer(true);
            timer.schedule(new TimerTask() {
                public void run() {
                    try {
                        follow.cancel();
                    } catch (SQLException error) {
                        throw new RuntimeException(error);
                    }
                }
            }, 50, 50);
            try {
                follow.executeQuery("SUBSCRIBE TO per_colour");
                throw new AssertionError("not canceled");
            } catch (SQLException error) {
                check(error.getSQLState(), "57014");
            }
            timer.cancel();
        }
        try (Statement slow = connection.createStatement()) {
            slow.setQueryTimeout(1);
            slow.executeQuery("SELECT count(*) FROM generate_series(1, 1000000000000)");
            throw new AssertionError("not canceled");
        } catch (SQLException error) {
            check(error.getSQLState(), "57014");
        }
        check(query(connection, "SELECT 7"), List.of("7"));
    }

    public static void main(String[] arguments) throws Exception {
        url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/millstream?user=me";
        TimeZone.setDefault(TimeZone.getTimeZone("Europe/Berlin"));
        try (Connection connection = DriverManager.getConnection(url)) {
            try (Statement statement = connection.createStatement()) {
                statement.execute("CREATE TABLE pairs (a BIGINT, b VARCHAR, c INT, PRIMARY KEY (b, a))");
            }
            metadata(connection);
            types(connection);
            writing(connection);
            copying(connection);
            changes(connection);
        }
    }
}

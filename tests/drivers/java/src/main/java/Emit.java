import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import org.postgresql.util.PGobject;

/** emit() through JDBC: strings are varchar there, unless stringtype=unspecified leaves them open. */
public final class Emit {
    private static final String DOCUMENT = "{\"b\": 1.5, \"a\": [1, 2], \"text\": \"größe\"}";
    private static final String AS_JSONB = "{\"a\": [1, 2], \"b\": 1.5, \"text\": \"größe\"}";
    private static final String HEADERS = "{\"tenant\": \"acme\"}";
    private static final UUID ID = UUID.fromString("0d9c5f3c-6f0e-4f0a-9a0e-0d7c4ef4b3a1");

    private static final List<String> expected = new ArrayList<>();

    public static void main(String[] args) throws SQLException {
        String url = System.getenv("DATABASE_URL").replaceFirst(
            "postgresql://([^@]+)@(.*)", "jdbc:postgresql://$2?user=$1");
        long last;
        try (Connection reader = DriverManager.getConnection(url)) {
            last = number(reader, "SELECT coalesce(max(seq), 0) FROM postrider.outbox");
            for (String more : List.of("", "&stringtype=unspecified", "&prepareThreshold=1",
                    "&preferQueryMode=simple")) {
                try (Connection connection = DriverManager.getConnection(url + more)) {
                    // In simple mode the driver sends a typed value as a literal without its type,
                    // so Postgres keeps the value's text.
                    emitAll(connection, more.endsWith("=simple") ? DOCUMENT : AS_JSONB);
                }
            }
            compare(reader, last);
        }
    }

    private static void emitAll(Connection connection, String asJsonb) throws SQLException {
        for (Object payload : List.of(DOCUMENT, typed("json", DOCUMENT), typed("jsonb", DOCUMENT))) {
            String stored = payload instanceof PGobject o && o.getType().equals("jsonb")
                ? asJsonb : DOCUMENT;
            call(connection, "SELECT postrider.emit('a', ?)", stored, null, "{}", payload);
            for (Object key : List.of("o-1", 42, 1L << 40, ID)) {
                call(connection, "SELECT postrider.emit(?, ?, ?, ?)", stored, key, "{}",
                    "a", payload, "order", key);
                for (Object headers : List.of(HEADERS, typed("json", HEADERS), typed("jsonb", HEADERS))) {
                    call(connection, "SELECT postrider.emit(?, ?, ?, ?, headers => ?)", stored, key,
                        HEADERS, "a", payload, "order", key, headers);
                }
            }
        }
        String events = "[{\"event_type\": \"a\", \"payload\": " + DOCUMENT + "}]";
        call(connection, "SELECT postrider.emit_many(?)", DOCUMENT, null, "{}", events);
        call(connection, "SELECT postrider.emit_many(?)", DOCUMENT, null, "{}", typed("json", events));
        call(connection, "SELECT postrider.emit_many(?)", asJsonb, null, "{}", typed("jsonb", events));
    }

    private static void call(Connection connection, String sql, String payload, Object key,
            String headers, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int index = 0; index < values.length; index++) {
                if (values[index] instanceof String text) {
                    statement.setString(index + 1, text);
                } else {
                    statement.setObject(index + 1, values[index]);
                }
            }
            statement.execute();
        }
        expected.add(payload + "|" + key + "|" + headers);
    }

    private static PGobject typed(String type, String value) throws SQLException {
        PGobject object = new PGobject();
        object.setType(type);
        object.setValue(value);
        return object;
    }

    private static void compare(Connection reader, long last) throws SQLException {
        int count = 0;
        try (Statement statement = reader.createStatement();
                ResultSet rows = statement.executeQuery("SELECT payload::text || '|'"
                    + " || coalesce(aggregate_id, 'null') || '|' || headers FROM postrider.outbox"
                    + " WHERE seq > " + last + " ORDER BY seq")) {
            while (rows.next()) {
                if (count >= expected.size() || !rows.getString(1).equals(expected.get(count))) {
                    throw new AssertionError("row " + count + ": " + rows.getString(1));
                }
                count++;
            }
        }
        if (count != expected.size()) {
            throw new AssertionError(count + " rows of " + expected.size());
        }
        System.out.println(count + " calls, every row as sent");
    }

    private static long number(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getLong(1);
        }
    }
}
